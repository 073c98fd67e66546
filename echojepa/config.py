"""Strict, frozen configuration: one YAML file, at most one parent, then dotted overrides.

    config = load("configs/pretrain/demo.yaml", ["optimizer.lr.peak=1e-3"], PretrainConfig)

A file may name a parent with `extends: other.yaml` (relative to itself) and then holds only what
differs. Unknown keys are errors that name the nearest valid key. Each setting is declared once, in
a `Strict` model beside its owner, with a docstring or comment that says what it does.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, Union, cast, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echojepa.errors import ConfigError

_MAX_EXTENDS = 8


class Strict(BaseModel):
    """Base of every config model: frozen, no unknown keys, no silent type conversion.

    The docstring below a field is its description; `echojepa settings` prints it.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    command: ClassVar[str | None] = None
    """The command whose whole config this is; errors name `echojepa settings COMMAND`."""


Model = TypeVar("Model", bound=Strict)
FolderName = Annotated[str, Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")]
"""A name that a folder is given: without slashes, and not of dots alone."""


def changeable(default: Any = ..., **kwargs: Any) -> Any:
    """A field that may differ when a run is resumed (it does not touch what is computed)."""
    return Field(default, json_schema_extra={"changeable_at_resume": True}, **kwargs)


def load(path: str | Path, overrides: Sequence[str], model: type[Model]) -> Model:
    """Read `path`, apply its parents and `key=value` overrides, and validate into `model`.

    Raises:
        ConfigError: a file is missing or malformed, a key is unknown, or a value is invalid.
    """
    tree = _override(_read_with_parents(Path(path)), overrides)
    return validate(_resolve(tree, str(path)), model, where=str(path))


def parse(overrides: Sequence[str], model: type[Model]) -> Model:
    """A config from `key=value` settings alone. Raises `ConfigError` like `load`."""
    tree = _override(OmegaConf.create(), overrides)
    return validate(_resolve(tree, "command line"), model, where="command line")


def amend(config: Model, overrides: Sequence[str]) -> Model:
    """A config with `key=value` settings changed. Raises `ConfigError` like `load`."""
    tree = _override(OmegaConf.create(to_tree(config)), overrides)
    return validate(_resolve(tree, "command line"), type(config), "command line")


def validate(tree: Any, model: type[Model], where: str) -> Model:
    """Validate a plain tree of dicts, lists and scalars into `model`, strictly."""
    try:
        return model.model_validate_json(json.dumps(tree), strict=True)
    except TypeError as error:
        raise ConfigError(f"{error}", "Write text, numbers, lists or sections.", where) from None
    except ValidationError as error:
        raise _explain(error, model, where) from None


def to_tree(config: Strict) -> dict[str, Any]:
    """The resolved config as plain JSON-able values; `validate(to_tree(c), type(c), "")` is `c`."""
    return config.model_dump(mode="json")


def to_yaml(config: Strict) -> str:
    """The resolved config as YAML text."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)


def fingerprint(config: Strict) -> str:
    """A short hash of the resolved config (16 hexadecimal digits)."""
    text = json.dumps(to_tree(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def binding_differences(old: dict[str, Any], new: Strict) -> list[str]:
    """Dotted keys that differ between a saved tree and a config and may not change at resume."""
    changed = []
    for key, value, free in _leaves(new):
        if not free and _lookup(old, key) != value:
            changed.append(key)
    return changed


def _leaves(config: Strict, prefix: str = "") -> Iterator[tuple[str, Any, bool]]:
    """Yields (dotted key, JSON value, changeable at resume) of every leaf setting."""
    tree = to_tree(config)
    for name, field in type(config).model_fields.items():
        extra = field.json_schema_extra
        free = isinstance(extra, dict) and bool(extra.get("changeable_at_resume"))
        value = getattr(config, name)
        if isinstance(value, Strict) and not free:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", tree[name], free


def _lookup(tree: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return None
        tree = tree[part]
    return tree


def _read_with_parents(path: Path, depth: int = 0) -> DictConfig:
    if depth > _MAX_EXTENDS:
        raise ConfigError(
            "`extends` goes round in a circle", "Remove one of the `extends:` lines.", str(path)
        )
    if not path.is_file():
        raise ConfigError("no such config file", "Check the path.", str(path))
    try:
        tree = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        summary = " ".join(str(error).split())
        raise ConfigError(f"not valid YAML: {summary}", "Fix the file.", str(path)) from None
    if not isinstance(tree, DictConfig):
        raise ConfigError("a config file holds `key: value` lines", "Fix the file.", str(path))
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise ConfigError("`extends` names one file", "Write `extends: other.yaml`.", str(path))
    return cast(
        DictConfig, OmegaConf.merge(_read_with_parents(path.parent / parent, depth + 1), tree)
    )


def _resolve(tree: DictConfig, where: str) -> Any:
    """Plain values, with every ${...} replaced."""
    try:
        return OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        reason = " ".join(str(error).split())
        raise ConfigError(reason, "Check what stands between ${ and }.", where) from None


def _override(tree: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply `key=value` settings in turn; `a.0.b` reaches into lists."""
    tree = cast(DictConfig, OmegaConf.create(OmegaConf.to_container(tree)))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(
                f"override {override!r} is not of the form key=value",
                "Write for instance optimizer.lr.peak=1e-3.",
                "command line",
            )
        try:
            value = OmegaConf.from_dotlist([f"value={text}"])["value"]
            OmegaConf.update(tree, key, value, merge=True, force_add=True)
        except (yaml.YAMLError, OmegaConfBaseException, TypeError, IndexError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"override {override!r} cannot be applied: {reason}",
                "Check the key and the value.",
                "command line",
            ) from None
    return tree


def _explain(error: ValidationError, model: type[Strict], where: str) -> ConfigError:
    """Turn pydantic's first finding into one line that names key, value and remedy."""
    first = error.errors()[0]
    place = _locate([str(part) for part in first["loc"]], model)
    key = ".".join(place.keys)
    if first["type"] == "union_tag_not_found":
        return ConfigError(f"key '{key}.kind' is missing", "Say which kind it is.", where)
    if first["type"] == "extra_forbidden":
        remedy = _suggest(place, model)
        if model.command is not None:
            remedy += f" All keys: echojepa settings {model.command}"
        return ConfigError(f"unknown key {key!r}", remedy, where)
    if first["type"] == "missing":
        return ConfigError(f"key {key!r} is missing", "Set it in the file or as key=value.", where)
    reason = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
    return ConfigError(f"{key or 'config'}{shown}: {reason}", "Change the value.", where)


class _Place(NamedTuple):
    """Where in a config something is wrong."""

    keys: list[str]
    """Of the section and of what is wrong in it."""
    fixed: list[str]
    """The same without positions in lists and names of the user's own."""
    siblings: list[str]
    """Every key that may stand there."""


def _locate(location: list[str], model: type[Strict]) -> _Place:
    """A position as pydantic tells it; of a section of several kinds it also names the kind."""
    keys: list[str] = []
    fixed: list[str] = []
    siblings: list[str] = []
    here, free = [model], False
    for part in location:
        of_this_kind = [nested for nested in here if kind_of(nested) == part]
        if len(here) > 1 and of_this_kind and not free:
            here = of_this_kind
            continue
        keys.append(part)
        if free:
            free = False
            continue
        fixed.append(part)
        fields = {name: field for nested in here for name, field in nested.model_fields.items()}
        siblings = sorted(fields)
        annotation = fields[part].annotation if part in fields else None
        here, free = nested_models(annotation), container_of(annotation) is not None
    return _Place(keys, fixed, siblings)


def _suggest(place: _Place, model: type[Strict]) -> str:
    """The nearest valid key: a sibling that is spelt alike, else the same name elsewhere."""
    leaf = place.keys[-1]
    alike = difflib.get_close_matches(leaf, place.siblings, n=1, cutoff=0.6)
    if alike:
        return f"Did you mean {'.'.join([*place.keys[:-1], alike[0]])!r}?"
    others = [name for name in _valid_keys(model) if name != ".".join(place.fixed)]
    elsewhere = {name.rpartition(".")[2]: name for name in reversed(others)}
    found = difflib.get_close_matches(leaf, elsewhere, n=1, cutoff=0.75)
    if found:
        return f"Did you mean {elsewhere[found[0]]!r}?"
    return f"Valid here: {', '.join(place.siblings)}."


def _valid_keys(model: type[Strict], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        for nested in nested_models(field.annotation):
            keys.extend(_valid_keys(nested, f"{prefix}{name}."))
    return keys


def nested_models(annotation: Any) -> list[type[Strict]]:
    """Config models inside a field's type: `A`, `A | None`, `tuple[A, ...]`; several of a union."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in nested_models(arg)]


def container_of(annotation: Any) -> type | None:
    """tuple or dict, if a field's type is a list or a mapping, perhaps or null."""
    if get_origin(annotation) in (tuple, dict):
        return cast(type, get_origin(annotation))
    optional = get_origin(annotation) in (Annotated, Union, UnionType)
    inside = get_args(annotation) if optional else ()
    return next((found for part in inside if (found := container_of(part))), None)


def kind_of(model: type[Strict]) -> str | None:
    """The one value of its setting `kind`, by which the models of a union are told apart."""
    field = model.model_fields.get("kind")
    values = () if field is None else get_args(field.annotation)
    return str(values[0]) if len(values) == 1 else None
