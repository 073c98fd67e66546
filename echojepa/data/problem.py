"""Why a clip could not be used: one record, one text form, one boundary where a clip may fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from echojepa.errors import ClipError, StorageError

T = TypeVar("T")
_STORAGE = "storage"
_SEPARATOR = "|"


class Problem(NamedTuple):
    """Why one clip could not be used."""

    stage: str
    """"open", "decode" or "sample"; "storage" where the clip is not to blame."""
    kind: str
    """A short stable name such as "truncated"."""
    message: str
    """For people; holds no path and no identifier of a patient."""

    def __str__(self) -> str:
        return f"{self.stage}: {self.kind}: {self.message}"

    def to_text(self) -> str:
        """The form in which a problem stands in a column of text; "" there is no problem."""
        return _SEPARATOR.join(self)

    @classmethod
    def from_text(cls, text: str) -> Problem | None:
        """The inverse of `to_text`."""
        return cls(*text.split(_SEPARATOR, 2)) if text else None


class ClipProblem(NamedTuple):
    """A problem and the clip that has it."""

    clip_id: str
    problem: Problem


def guarded(action: Callable[[], T]) -> tuple[T | None, Problem | None]:
    """The one boundary at which a clip may fail: its value, or a problem that can be recorded.

    Decoders are other people's code over other people's files. Whatever they raise must not take
    the other clips of a block down, so everything is caught here, and only here; it is counted
    (`max_bad_fraction`) and recorded (`rejected.parquet`), never dropped.

    Storage that fails is not a bad clip: its problem has the stage "storage". Code that receives
    problems passes them to `raise_if_storage_failed` first.
    """
    try:
        return action(), None
    except ClipError as error:
        return None, Problem(error.stage, error.kind, error.message)
    except StorageError as error:
        return None, Problem(_STORAGE, "unavailable", json.dumps(error.args))
    except Exception as error:  # noqa: BLE001 - see above
        return None, Problem("decode", "unexpected", type(error).__name__)


def raise_if_storage_failed(problems: Iterable[Problem | None]) -> None:
    """Raise `StorageError` if one of these problems is the storage's and not its clip's."""
    for problem in problems:
        if problem is not None and problem.stage == _STORAGE:
            what, remedy, where = json.loads(problem.message)
            raise StorageError(what, remedy, where)
