"""Every setting of a config model, for people: key, type, default, bounds, meaning.

The one source is the model itself; nothing here is declared a second time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from echojepa.config import Strict, container_of, kind_of, nested_models
from echojepa.errors import ConfigError

_NAMES = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    JsonValue: "anything",
}
_PLACES: dict[type | None, str] = {tuple: ".N", dict: ".NAME", None: ""}
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "at least"}


class Setting(NamedTuple):
    """One key of a config."""

    key: str
    """Dotted; N stands for a position in a list, NAME for a name of the user's own."""
    type: str
    default: str
    """As YAML; "required" if there is none, "" for a section whose keys have defaults."""
    bounds: str
    meaning: str
    changeable: bool
    """Whether it may differ when a run is resumed."""
    kinds: tuple[str, ...] = ()
    """Where its section is one of several kinds: those that have it; empty if all do. Of sections
    inside sections, the kinds of the inner one."""

    @property
    def title(self) -> str:
        """The key, and the kinds that have it."""
        return f"{self.key} ({', '.join(self.kinds)})" if self.kinds else self.key


def list_settings(model: type[Strict], branch: str = "") -> list[Setting]:
    """All settings of a model, or those at and below a dotted key.

    Raises:
        ConfigError: the model has no such branch.
    """
    every = list(_walk(model, "", changeable=False))
    found = [s for s in every if not branch or f"{s.key}.".startswith(f"{branch}.")]
    if not found:
        top = sorted({s.key.partition(".")[0] for s in every})
        raise ConfigError(
            f"there is no setting {branch!r}", f"The branches are {', '.join(top)}.", "command line"
        )
    return found


def as_markdown(settings: list[Setting]) -> str:
    """A table; changeable settings carry a star."""
    rows = ["| key | type | default | bounds | meaning |", "|---|---|---|---|---|"]
    for s in settings:
        star = " \\*" if s.changeable else ""
        default = f"`{s.default}`" if s.default not in ("", "required") else s.default
        kinds = f" ({', '.join(s.kinds)})" if s.kinds else ""
        cells = (f"`{s.key}`{star}{kinds}", s.type, default, s.bounds, s.meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _walk(
    model: type[Strict], prefix: str, *, changeable: bool, given: Strict | None = None
) -> Iterator[Setting]:
    """All settings of a model; `given` is the value that its parent has by default, if any."""
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        free = changeable or (isinstance(extra, dict) and bool(extra.get("changeable_at_resume")))
        key = f"{prefix}{name}"
        default = field.default if given is None else getattr(given, name)
        yield Setting(
            key=key,
            type=_type_text(field.annotation),
            default=_default_text(default),
            bounds=_bounds_text(field),
            meaning=" ".join((field.description or "").split()),
            changeable=free,
        )
        below = f"{key}{_PLACES[container_of(field.annotation)]}."
        listed = {}
        for section in nested_models(field.annotation):
            inside = default if isinstance(default, section) else None
            listed[section] = list(_walk(section, below, changeable=free, given=inside))
        yield from _merged(listed, f"{below}kind")


def _merged(listed: dict[type[Strict], list[Setting]], kind: str) -> Iterator[Setting]:
    """The settings of the sections that may stand in one place, equal ones once.

    Several are told apart by their `kind`, which is listed first.
    """
    owners: dict[Setting, list[str]] = {}
    for section, settings in listed.items():
        for setting in settings:
            owners.setdefault(setting, []).append(kind_of(section) or "")
    if len(listed) > 1:
        kinds = ", ".join(str(kind_of(section)) for section in listed)
        meaning = "Which kind of section it is; some settings are those of some kinds alone."
        yield Setting(kind, kinds, "required", "", meaning, changeable=False)
        owners = {setting: own for setting, own in owners.items() if setting.key != kind}
    for setting, own in owners.items():
        everywhere = len(own) == len(listed)
        yield setting if everywhere or setting.kinds else setting._replace(kinds=tuple(own))


def _type_text(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(parts[0])
    if origin is None and annotation in _NAMES:
        return _NAMES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return "section"
    if origin is Literal:
        return ", ".join(str(part) for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type_text(part) for part in parts))
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return f"list of {_type_text(parts[0])}"
        return f"{len(parts)} of {_type_text(parts[0])}"
    assert origin is dict, f"no words for {annotation}"
    return f"{_type_text(parts[1])} by {_type_text(parts[0])}"


def _default_text(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, Strict):
        return ""
    return json.dumps(to_jsonable_python(default))


def _bounds_text(field: FieldInfo) -> str:
    found = []
    for constraint in field.metadata:
        for name, sign in _BOUNDS.items():
            bound = getattr(constraint, name, None)
            if bound is not None:
                found.append(f"{sign} {bound}")
    return ", ".join(found)
