"""The documents are true: every command, path and list of files in them exists."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from support.paths import ROOT

from echojepa.cli.main import app

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = typer.main.get_command(app)
PATH = re.compile(r"(?<![\w/.])(?:echojepa|tests|configs|docs|ray_jobs|cluster)/[\w/.*-]*[\w*/]")
IMPLEMENTS = {"echojepa/train/zero_engine.py": "echojepa/train/engine.py"}
"""Files that are reached through a protocol, and where it is."""
MOST_FILES = {"A clip": 14, "A save": 6, "A resume": 7, "A setting": 5}


@pytest.mark.parametrize("document", DOCUMENTS, ids=[d.name for d in DOCUMENTS])
def test_every_path_in_it_exists(document: Path) -> None:
    named = set(PATH.findall(document.read_text()))
    missing = {p for p in named if not (list(ROOT.glob(p)) if "*" in p else (ROOT / p).exists())}
    assert not missing - {"ray_jobs/X.py"}


def shell_lines(document: Path) -> list[str]:
    """Lines of code blocks and code spans that call our command."""
    text = document.read_text()
    blocks = "\n".join(re.findall(r"```\n(.*?)```", text, flags=re.S)).replace("\\\n", " ")
    spans = re.findall(r"`(echojepa [^`]*)`", text)
    lines = [line.partition("&& ")[2] or line for line in blocks.splitlines()]
    return [line for line in [*lines, *spans] if line.startswith("echojepa ")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=[d.name for d in DOCUMENTS])
def test_every_command_in_it_exists_with_its_options(document: Path) -> None:
    for line in shell_lines(document):
        words = shlex.split(line, comments=True)
        command: Any = COMMANDS
        for word in words[1:]:
            if not hasattr(command, "commands"):
                break
            for name in word.split("/"):  # "echojepa pretrain/sweep/evaluate"
                assert name in command.commands, f"{line}: no command {name}"
            command = command.commands[word.split("/")[0]]
        options = {o for parameter in command.params for o in parameter.opts}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options | {"--help"}, f"{line}: {given - options}"


def test_the_readme_shows_the_two_commands_on_one_line_each() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert "pip install -e . && echojepa demo" in lines
    assert "pip install -e '.[test]' && pytest" in lines


def test_the_readme_names_every_room() -> None:
    tree = (ROOT / "README.md").read_text()
    for path in (ROOT / "echojepa").iterdir():
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            name = path.name if path.is_file() else f"{path.name}/"
            assert name == "__init__.py" or f"  {name}" in tree or f" {name}" in tree, name


def reading_lists() -> dict[str, list[Path]]:
    """The lists of CONTRIBUTING.md: what to open, in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    part = text[text.index("## What to open") : text.index("## House rules")]
    found = {}
    for title, body in re.findall(r"\*\*(.*?)\*\*(.*?)(?=\*\*|\Z)", part, flags=re.S):
        found[title] = [ROOT / p for p in re.findall(r"^\d+\. `([^`]*)`", body, flags=re.M)]
    return found


def imported(path: Path) -> set[Path]:
    """Our files that a file imports, and a parent that a config extends."""
    if path.suffix != ".py":
        return set()
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {ROOT / Path(*name.split(".")).with_suffix(".py") for name in names}
    return {file for file in files if file.is_file()}


@pytest.mark.parametrize("title", MOST_FILES)
def test_reading_lists_are_short_and_hang_together(title: str) -> None:
    """Every file imports one of the list or is imported by one, so that no step is left out."""
    (files,) = [files for name, files in reading_lists().items() if name.startswith(title)]
    assert 3 < len(files) <= MOST_FILES[title]
    assert all(file.is_file() for file in files)
    code = [file for file in files if file.suffix == ".py"]
    for file in code:
        others = set(code) - {file}
        known = ROOT / IMPLEMENTS.get(str(file.relative_to(ROOT)), str(file))
        assert imported(file) & others or any(known in imported(o) for o in others), file
