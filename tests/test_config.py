"""Configs: parents, overrides, and errors that name the key, the value and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.example_config import Generator, Rate, Run

from echojepa.config import (
    amend,
    binding_differences,
    fingerprint,
    load,
    parse,
    to_tree,
    to_yaml,
    validate,
)
from echojepa.errors import ConfigError

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file into the test's folder."""

    def into(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return into


@pytest.fixture
def minimal(write: Write) -> Path:
    """The shortest valid file."""
    return write("minimal.yaml", "run_dir: out\n")


def refusal(path: Path, *overrides: str) -> ConfigError:
    """The error of a load that must fail."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, Run)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_chain_of_parents_holds_only_what_differs(write: Write) -> None:
    write("base.yaml", "run_dir: base\nseed: 1\nrate: {peak: 0.1, warmup_steps: 5}\n")
    write("deep/middle.yaml", "extends: ../base.yaml\nseed: 2\nrate: {peak: 0.2}\n")
    leaf = write("leaf.yaml", "extends: deep/middle.yaml\nrate: {shape: cosine}\n")
    config = load(leaf, [], Run)
    expected = Rate(peak=0.2, warmup_steps=5, shape="cosine")
    assert config == Run(run_dir="base", seed=2, rate=expected)


def test_a_child_replaces_a_whole_list(write: Write) -> None:
    write("base.yaml", "run_dir: base\ngenerators: [{num_blocks: 1}, {num_blocks: 2}]\n")
    leaf = write("leaf.yaml", "extends: base.yaml\ngenerators: [{num_blocks: 3}]\n")
    assert load(leaf, [], Run).generators == (Generator(num_blocks=3),)


def test_overrides_apply_in_order_after_the_file(write: Write) -> None:
    path = write("c.yaml", "run_dir: out\nrate: {peak: 0.1, warmup_steps: 5}\n")
    config = load(path, ["rate.peak=1e-4", "seed=3", "seed=4", "enabled=true"], Run)
    assert config == Run(run_dir="out", seed=4, enabled=True, rate=Rate(peak=1e-4, warmup_steps=5))


def test_overrides_make_sections_lists_and_nulls(write: Write) -> None:
    path = write("c.yaml", "run_dir: out\nprobe: {peak: 2}\n")
    assert load(path, ["probe=null"], Run).probe is None
    assert load(path, ["probe.warmup_steps=7"], Run).probe == Rate(peak=2.0, warmup_steps=7)
    found = load(path, ["generators=[{num_blocks: 3}, {aspect: [1, 2]}]"], Run).generators
    assert found == (Generator(num_blocks=3), Generator(aspect=(1.0, 2.0)))


def test_overrides_reach_into_lists(write: Write) -> None:
    path = write("c.yaml", "run_dir: out\ngenerators: [{num_blocks: 1}, {num_blocks: 2}]\n")
    found = load(path, ["generators.1.num_blocks=5"], Run).generators
    assert found == (Generator(num_blocks=1), Generator(num_blocks=5))
    with pytest.raises(ConfigError, match="'generators.1.num_block'.*num_blocks"):
        load(path, ["generators.1.num_block=5"], Run)


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001"])
def test_scientific_notation_is_a_number(text: str, minimal: Path, write: Write) -> None:
    assert load(minimal, [f"rate.peak={text}"], Run).rate.peak == 1e-4
    assert load(write("c.yaml", f"run_dir: a\nrate: {{peak: {text}}}"), [], Run).rate.peak == 1e-4


def test_a_value_may_hold_an_equals_sign(minimal: Path) -> None:
    assert load(minimal, ["run_dir=a/lr=0.1"], Run).run_dir == "a/lr=0.1"


def test_circular_parents_are_refused(write: Write) -> None:
    write("a.yaml", "extends: b.yaml\n")
    error = refusal(write("b.yaml", "extends: a.yaml\n"))
    assert "circle" in error.what
    assert error.where is not None and error.where.endswith(".yaml")


def test_a_missing_file_and_a_missing_parent_are_named(write: Write, tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml").where == str(tmp_path / "none.yaml")
    error = refusal(write("c.yaml", "extends: gone.yaml\nrun_dir: a\n"))
    assert error.what == "no such config file"
    assert error.where == str(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("line", "key", "nearest"),
    [
        ("sed: 1", "sed", "seed"),
        ("rate: {paek: 1}", "rate.paek", "rate.peak"),
        ("probe: {warmup: 1}", "probe.warmup", "probe.warmup_steps"),
        ("generators: [{num_block: 1}]", "generators.0.num_block", "num_blocks"),
        ("warmup_steps: 1", "warmup_steps", "rate.warmup_steps"),
    ],
)
def test_an_unknown_key_names_the_nearest(write: Write, line: str, key: str, nearest: str) -> None:
    path = write("c.yaml", f"run_dir: a\n{line}\n")
    error = refusal(path)
    assert repr(key) in error.what
    assert nearest in error.remedy
    assert error.where == str(path)


@pytest.mark.parametrize(
    ("override", "valid"),
    [
        ("zzzzqqqq=1", {"run_dir", "seed", "rate", "generators"}),
        ("rate.zzzzqqqq=1", {"peak", "warmup_steps", "shape"}),
        ("generators=[{zzzzqqqq: 1}]", {"num_blocks", "aspect"}),
    ],
)
def test_an_unknown_key_without_a_neighbour_lists_the_valid_ones(
    minimal: Path, override: str, valid: set[str]
) -> None:
    assert valid <= set(re.findall(r"\w+", refusal(minimal, override).remedy))


def test_a_missing_key_is_named(write: Write) -> None:
    error = refusal(write("c.yaml", "seed: 1\n"))
    assert error.what == "key 'run_dir' is missing"


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("seed='3'", "seed = '3'"),
        ("seed=1.5", "seed = 1.5"),
        ("seed=true", "seed = True"),
        ("enabled=1", "enabled = 1"),
        ("enabled='yes'", "enabled = 'yes'"),
        ("rate.peak='1'", "rate.peak = '1'"),
        ("rate.warmup_steps=-1", "rate.warmup_steps = -1"),
        ("rate.shape=round", "rate.shape = 'round'"),
        ("rate=3", "rate = 3"),
        ("rate=null", "rate = None"),
        ("run_dir=5", "run_dir = 5"),
        ("generators=[{aspect: [1, 2, 3]}]", "generators.0.aspect = [1, 2, 3]"),
    ],
)
def test_a_wrong_value_is_shown_with_its_key(minimal: Path, override: str, shown: str) -> None:
    assert refusal(minimal, override).what.startswith(shown)


def test_a_validator_speaks_for_itself(minimal: Path) -> None:
    assert "seed 13 is unlucky" in refusal(minimal, "seed=13").what


@pytest.mark.parametrize(
    "text",
    [
        "rate: {peak: 1",
        "a: b: c",
        "- run_dir\n- out",
        "run_dir: a\nrun_dir: b",
        "run_dir: !!python/object/apply:os.getcwd []",
        "a: &a [*a]",
        "run_dir: \0",
        "run_dir: a\nextends: 5",
        "run_dir: a\nextends: [b.yaml]",
        "run_dir: ${nowhere}",
        "run_dir: ${nowhere",
        "run_dir: !!binary aGk=",
    ],
)
def test_malformed_files_are_refused_by_name(write: Write, text: str) -> None:
    path = write("c.yaml", text)
    assert refusal(path).where == str(path)


@pytest.mark.parametrize("override", ["rate.peak", "=3", "", "--seed 3"])
def test_an_override_without_a_key_or_value_is_refused(minimal: Path, override: str) -> None:
    error = refusal(minimal, override)
    assert repr(override) in error.what
    assert error.where == "command line"


@pytest.mark.parametrize(
    "override",
    ["run_dir=[a", "run_dir={a", "generators.7.num_blocks=3", "seed.x.y=1", "run_dir=${nowhere}"],
)
def test_an_override_that_cannot_be_read_or_merged_is_refused(write: Write, override: str) -> None:
    path = write("c.yaml", "run_dir: a\ngenerators: [{num_blocks: 1}]\n")
    refusal(path, override)


def test_not_a_number_is_no_setting(minimal: Path) -> None:
    assert "rate.peak" in refusal(minimal, "rate.peak=.nan").what


def test_yaml_and_tree_rebuild_the_same_config() -> None:
    config = Run(
        run_dir="1e3",
        seed=5,
        enabled=True,
        rate=Rate(peak=1e-5, shape="cosine"),
        probe=Rate(),
        generators=(Generator(), Generator(num_blocks=2, aspect=(1.0, 1.25))),
    )
    assert validate(yaml.safe_load(to_yaml(config)), Run, "here") == config
    assert validate(to_tree(config), Run, "here") == config


def test_a_written_config_loads_again(tmp_path: Path) -> None:
    config = Run(run_dir="no", rate=Rate(peak=1e-5))
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load(path, [], Run) == config


def test_the_fingerprint_follows_every_value_and_nothing_else(minimal: Path) -> None:
    config = load(minimal, [], Run)
    assert fingerprint(config) == fingerprint(load(minimal, ["seed=0"], Run))
    others = [amend(config, [o]) for o in ("seed=1", "rate.peak=1e-4", "run_dir=b", "probe={}")]
    marks = {fingerprint(c) for c in [config, *others]}
    assert len(marks) == 5
    assert all(len(m) == 16 and int(m, 16) >= 0 for m in marks)


def test_configs_cannot_be_changed() -> None:
    config = Run(run_dir="a")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_only_binding_settings_count_as_differences() -> None:
    old = Run(run_dir="a", generators=(Generator(), Generator()))
    assert binding_differences(to_tree(old), old) == []
    free = amend(old, ["run_dir=b", "probe.peak=5"])
    assert free.probe == Rate(peak=5.0)
    assert binding_differences(to_tree(old), free) == []
    new = amend(free, ["rate.peak=0.5", "rate.shape=cosine", "generators=[{}]"])
    assert sorted(binding_differences(to_tree(old), new)) == [
        "generators",
        "rate.peak",
        "rate.shape",
    ]


def test_a_setting_the_saved_tree_does_not_know_is_a_difference() -> None:
    new = Run(run_dir="a")
    old = to_tree(new)
    del old["rate"]["peak"]
    assert binding_differences(old, new) == ["rate.peak"]


def test_parse_builds_from_settings_alone() -> None:
    assert parse(["run_dir=a", "rate.peak=2"], Run) == Run(run_dir="a", rate=Rate(peak=2.0))
    with pytest.raises(ConfigError, match="'run_dir' is missing") as caught:
        parse([], Run)
    assert caught.value.where == "command line"


def test_amend_changes_only_what_is_named_and_checks_it() -> None:
    config = Run(run_dir="a", seed=3, rate=Rate(peak=0.5, warmup_steps=2))
    assert amend(config, ["rate.peak=1"]) == Run(
        run_dir="a", seed=3, rate=Rate(peak=1.0, warmup_steps=2)
    )
    assert config.rate.peak == 0.5
    with pytest.raises(ConfigError, match=r"'rate\.paek'.*'rate\.peak'"):
        amend(config, ["rate.paek=1"])
