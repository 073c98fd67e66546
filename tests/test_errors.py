"""Errors: what a user can fix is one line and exit code 2; anything else keeps its traceback."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from echojepa import errors
from echojepa.errors import BrokenInvariantError, ClipError, UserError

USER_ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, UserError)
]


def run(body: str) -> subprocess.CompletedProcess[str]:
    """Run a statement under `exit_codes` in a process of its own."""
    program = f"from echojepa.errors import *\nwith exit_codes():\n    {body}\nprint('after')\n"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_user_error_is_one_line_and_exit_code_two() -> None:
    done = run("raise StorageError('cannot write', 'Choose another.', 'out/x')")
    assert done.returncode == 2
    assert done.stderr == "error: cannot write [out/x]. Choose another.\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise BrokenInvariantError('out of order')", "BrokenInvariantError"),
        ("raise ClipError('open', 'missing', 'no file')", "ClipError"),
    ],
)
def test_any_other_error_keeps_its_traceback_and_exits_with_one(body: str, name: str) -> None:
    done = run(body)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert name in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_success_goes_on() -> None:
    done = run("pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "")


def test_every_kind_of_user_error_is_known() -> None:
    names = {error.__name__ for error in USER_ERRORS}
    assert {"ConfigError", "ManifestError", "CheckpointError", "StorageError"} <= names
    assert all(name.endswith("Error") for name in names)


@pytest.mark.parametrize("kind", USER_ERRORS)
@pytest.mark.parametrize("where", [None, "a/b.yaml"])
def test_user_errors_survive_pickling(kind: type[UserError], where: str | None) -> None:
    error = kind("what is wrong", "Fix it.", where)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.what, again.remedy, again.where) == (error.what, error.remedy, error.where)
    assert str(again) == str(error)


@pytest.mark.parametrize("kind", USER_ERRORS)
def test_user_errors_are_rebuilt_from_their_arguments(kind: type[UserError]) -> None:
    error = kind("what", "Remedy.", "where")
    assert str(kind(*error.args)) == str(error) == "what [where]. Remedy."


def test_clip_errors_keep_their_attributes() -> None:
    error = ClipError("decode", "truncated", "3 of 8 frames")
    again = pickle.loads(pickle.dumps(error))
    assert (again.stage, again.kind, again.message) == ("decode", "truncated", "3 of 8 frames")
    assert str(again) == str(error) == "decode: truncated: 3 of 8 frames"


def test_the_two_families_do_not_mix() -> None:
    assert not issubclass(ClipError, UserError)
    assert not issubclass(BrokenInvariantError, UserError)
    assert issubclass(BrokenInvariantError, AssertionError)
