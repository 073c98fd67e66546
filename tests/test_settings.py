"""Every setting can be found: with a meaning, on the command line and in docs/settings.md."""

from __future__ import annotations

import pytest
from pydantic import Field
from support.paths import ROOT
from typer.testing import CliRunner

from echojepa.cli.main import app
from echojepa.cli.settings import Job, markdown_of, model_of
from echojepa.config import Strict, changeable, parse, validate
from echojepa.errors import ConfigError
from echojepa.settings import Setting, list_settings


class Inner(Strict):
    """A section."""

    rate: float = Field(gt=0, le=1)
    """How fast."""


class Outer(Strict):
    """A config."""

    command = "pretrain"

    one: Inner
    """Must be given."""
    other: Inner = Inner(rate=0.5)
    """Has a default."""
    several: tuple[Inner, ...] | None = None
    """Any number."""
    folder: str = changeable("x")
    """Where."""


def of(key: str) -> Setting:
    """One setting of the config above."""
    return next(s for s in list_settings(Outer) if s.key == key)


def test_type_default_bounds_and_meaning_are_those_of_the_model() -> None:
    assert of("one") == Setting("one", "section", "required", "", "Must be given.", False)
    assert of("one.rate") == Setting(
        "one.rate", "number", "required", "> 0, <= 1", "How fast.", False
    )
    assert of("other.rate").default == "0.5", "the default of the section counts"
    assert of("several").type == "list of section or null"
    assert of("folder").changeable and not of("one.rate").changeable


def test_a_branch_is_a_key_and_what_is_below() -> None:
    assert [s.key for s in list_settings(Outer, "one")] == ["one", "one.rate"]
    with pytest.raises(ConfigError, match=r"no setting 'on'.*folder, one, other, several"):
        list_settings(Outer, "on")


@pytest.mark.parametrize("job", list(Job))
def test_every_setting_says_what_it_means(job: Job) -> None:
    settings = list_settings(model_of(job))
    assert {s.key.split(".")[0] for s in settings} == set(model_of(job).model_fields)
    assert not [s.key for s in settings if len(s.meaning) < 8]
    assert len({(s.key, s.kinds) for s in settings}) == len(settings)


def test_what_is_listed_is_what_is_accepted() -> None:
    """Every key of a whole config is listed, and no other."""
    tree = {"one": {"rate": 1}, "other": {"rate": 0.1}, "several": None, "folder": "y"}
    validate(tree, Outer, "test")
    listed = {s.key for s in list_settings(Outer)}
    assert {"one.rate", "other.rate", "several", "folder"} <= listed


def test_the_page_is_current() -> None:
    """If not: echojepa settings --markdown > docs/settings.md"""
    assert (ROOT / "docs" / "settings.md").read_text() == markdown_of(list(Job))


def test_the_command_prints_a_branch() -> None:
    said = CliRunner().invoke(app, ["settings", "pretrain", "optimizer.lr"])
    assert said.exit_code == 0
    assert "optimizer.lr.peak = required  (number, >= 0)" in said.stdout
    assert "Value after the warm-up" in said.stdout
    assert "loop.num_steps" not in said.stdout


def test_an_unknown_key_names_the_command() -> None:
    with pytest.raises(ConfigError, match=r"'one.rat'.*'one.rate'.*echojepa settings pretrain"):
        parse(["one.rate=1", "one.rat=1"], Outer)
