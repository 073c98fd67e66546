"""The one boundary at which a clip may fail, and the record of why it did."""

from __future__ import annotations

import pytest

from echojepa.data.problem import Problem, guarded, raise_if_storage_failed
from echojepa.errors import ClipError, StorageError

MISSING = Problem("open", "missing", "no such object")


def raising(error: Exception) -> Problem | None:
    """What becomes of an error."""

    def fail() -> int:
        raise error

    value, problem = guarded(fail)
    assert value is None
    return problem


def test_a_value_passes_through() -> None:
    assert guarded(lambda: 3) == (3, None)


def test_whatever_a_decoder_raises_becomes_a_problem() -> None:
    assert raising(ClipError(*MISSING)) == MISSING
    found = raising(ZeroDivisionError("/secret/path"))
    assert found == Problem("decode", "unexpected", "ZeroDivisionError"), "no text of others"


@pytest.mark.parametrize("message", ["plain", "with | a bar", "a|b|c", ""])
def test_the_text_form_holds_everything(message: str) -> None:
    problem = Problem("decode", "damaged", message)
    assert Problem.from_text(problem.to_text()) == problem
    assert Problem.from_text("") is None


def test_only_problems_of_the_storage_are_raised() -> None:
    raise_if_storage_failed([None, MISSING, Problem("decode", "damaged", "storage")])
    gone = raising(StorageError("it is gone", "Fetch it.", "data"))
    assert gone is not None
    travelled = Problem.from_text(gone.to_text())
    with pytest.raises(StorageError, match=r"it is gone \[data\]. Fetch it."):
        raise_if_storage_failed([None, travelled])
