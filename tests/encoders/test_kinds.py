"""The kinds of encoders in a config: told apart, printed, and explained when they are wrong."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from echojepa.config import Strict, to_tree, validate
from echojepa.encoders.custom import CustomSource
from echojepa.encoders.echofm import EchoFmSource
from echojepa.encoders.kinds import AnyEncoder
from echojepa.encoders.ours import OurSource, UntrainedSource
from echojepa.encoders.videomae import VideoMaeSource
from echojepa.encoders.vjepa2 import VJepa2Source
from echojepa.errors import ConfigError
from echojepa.settings import as_markdown, list_settings

EXAMPLES: list[tuple[type[Strict], dict[str, Any]]] = [
    (OurSource, {"kind": "ours", "path": "encoder", "random_seed": 1}),
    (
        UntrainedSource,
        {
            "kind": "untrained",
            "encoder": {"width": 24, "depth": 1, "num_heads": 2},
            "clip": {"size": 32},
        },
    ),
    (VJepa2Source, {"kind": "vjepa2", "weights": "vitl.pt", "branch": "online", "size": 256}),
    (VideoMaeSource, {"kind": "videomae", "weights": "folder", "batch": 2}),
    (EchoFmSource, {"kind": "echofm", "weights": "echofm.pth", "precision": "tf32"}),
    (CustomSource, {"kind": "custom", "factory": "a.b:c", "settings": {"x": [1, None]}}),
]


class Job(Strict):
    """A config with encoders, one and several."""

    one: AnyEncoder = OurSource(path="x")
    """The first."""
    many: tuple[AnyEncoder, ...] = ()
    """More."""
    named: dict[str, AnyEncoder] = {}  # noqa: RUF012
    """And others."""


@pytest.mark.parametrize(("kind", "tree"), EXAMPLES)
def test_a_kind_is_what_its_section_says(kind: type[Strict], tree: dict[str, Any]) -> None:
    job = validate({"one": tree, "many": [tree], "named": {"a": tree}}, Job, "test")
    for found in (job.one, *job.many, job.named["a"]):
        assert type(found) is kind
    assert validate(to_tree(job), Job, "again") == job
    assert pickle.loads(pickle.dumps(job)) == job


WRONG = {"kind": "videomae", "weights": "w", "bacth": 3}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"one": WRONG}, r"unknown key 'one.bacth'.*Did you mean 'one.batch'\?"),
        ({"many": [WRONG]}, r"unknown key 'many.0.bacth'.*Did you mean 'many.0.batch'\?"),
        ({"named": {"a": WRONG}}, r"unknown key 'named.a.bacth'.*'named.a.batch'\?"),
        ({"named": {"echofm": WRONG}}, r"unknown key 'named.echofm.bacth'.*'named.echofm.batch'"),
        ({"one": {**WRONG, "bacth": 1, "kind": "ours", "path": "p"}}, "unknown key 'one.weights'"),
        ({"one": {"kind": "echofm"}}, "key 'one.weights' is missing"),
        ({"many": [{"weights": "w"}]}, "key 'many.0.kind' is missing"),
        ({"one": {"kind": "echo"}}, "one: .*'echo'.*'ours', 'untrained', 'vjepa2', 'videomae'"),
        ({"one": {"kind": "vjepa2", "weights": "w", "size": 0}}, "one.size = 0: .*greater than 0"),
    ],
)
def test_a_wrong_key_is_named_as_it_is_written(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(tree, Job, "test")


def test_a_key_of_another_kind_is_no_suggestion() -> None:
    tree = {"one": {"kind": "custom", "factory": "a:b", "weights": "w"}}
    with pytest.raises(ConfigError) as caught:
        validate(tree, Job, "test")
    assert "Did you mean 'one.weights'" not in str(caught.value)


@pytest.mark.parametrize("place", ["one", "many.N", "named.NAME"])
def test_every_setting_of_every_kind_is_printed_with_its_meaning(place: str) -> None:
    settings = [s for s in list_settings(Job) if s.key.startswith(f"{place}.")]
    assert not [s.key for s in settings if len(s.meaning) < 8]
    assert len({(s.key, s.kinds) for s in settings}) == len(settings)
    listed = {(s.key, kind) for s in settings for kind in s.kinds or ("all",)}
    assert {
        (f"{place}.batch", "echoprime"),
        (f"{place}.precision", "all"),
        (f"{place}.weights", "vjepa2"),
        (f"{place}.weights", "echofm"),
        (f"{place}.encoder.width", "untrained"),
        (f"{place}.settings", "custom"),
    } <= listed
    assert (f"{place}.weights", "ours") not in listed
    (kind,) = (s for s in settings if s.key == f"{place}.kind")
    assert kind.type == "ours, untrained, vjepa2, videomae, echofm, panecho, echoprime, custom"
    assert kind.default == "required" and not kind.kinds
    assert f"{place}.branch (vjepa2)" in {s.title for s in settings}
    assert f"| `{place}.branch` (vjepa2) | target, online |" in as_markdown(settings)
