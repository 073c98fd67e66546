"""Typed errors and the process exit codes they stand for.

Two families exist. A `UserError` means that the person who started the command can fix it: the
command line prints it as one line (what, where, remedy) and exits with 2. A `BrokenInvariantError`
means that this software is wrong: it is never caught, and its traceback is wanted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_USER = 2
"""The user's input is wrong; 0 is done, 1 is anything else."""


class UserError(Exception):
    """Bad input. `what` names the thing, `where` the file or key, `remedy` what to do about it."""

    def __init__(self, what: str, remedy: str, where: str | None = None) -> None:
        super().__init__(what, remedy, where)
        self.what = what
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        where = f" [{self.where}]" if self.where else ""
        return f"{self.what}{where}. {self.remedy}"


class ConfigError(UserError):
    """A setting is unknown, missing, of the wrong type or contradicts another one."""


class ManifestError(UserError):
    """A manifest is missing, malformed, inconsistent, or not the one the run was started with."""


class PhantomError(UserError):
    """A phantom data set cannot be written as asked."""


class CheckpointError(UserError):
    """A checkpoint or weight file is missing, damaged, or belongs to another architecture."""


class StorageError(UserError):
    """An output folder cannot be written or holds something else."""


class ClusterError(UserError):
    """The Ray cluster cannot give what the job asks for."""


class BadDataError(UserError):
    """More clips are unreadable than the config allows."""


class PredictionError(UserError):
    """Predictions are incomplete, doubled or impossible, so no file is made of them."""


class DroppedStepsError(UserError):
    """Too many steps in a row were dropped: the run makes no progress."""


class CollapseError(UserError):
    """The representation has collapsed, and the run may not go back once more."""


class IncompleteError(UserError):
    """Parts of an evaluation failed; what could be done is done."""


class AuditError(UserError):
    """The recorded sample indices show a lost, doubled or swapped clip."""


class ClipError(Exception):
    """One clip cannot be used; becomes an error row, never a crash and never a substitute.

    `stage` is "open", "decode" or "sample"; `kind` is a short stable name such as "truncated".
    The message holds no path and no identifier of a patient, because it reaches logs and tables.
    """

    def __init__(self, stage: str, kind: str, message: str) -> None:
        super().__init__(stage, kind, message)
        self.stage = stage
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return f"{self.stage}: {self.kind}: {self.message}"


class BrokenInvariantError(AssertionError):
    """A promise of this software does not hold (for instance: a sample arrived out of order)."""


def first_line(error: Exception) -> str:
    """What somebody else's error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def exit_codes() -> Iterator[None]:
    """For entry points: a `UserError` becomes one line on stderr and exit code 2.

    Anything else keeps its traceback and ends with Python's own exit code 1.
    """
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(EXIT_USER) from None
