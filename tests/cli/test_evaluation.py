"""What stands on the command line is what is meant, whatever it looks like."""

from __future__ import annotations

import pytest

from echojepa.cli.evaluation import as_settings
from echojepa.config import parse
from echojepa.embed import EmbedConfig
from echojepa.predict import PredictConfig


@pytest.mark.parametrize(
    "path", ["2024", "a: b", "it's", "x #1", "[y]", "null", "out/pretrained, linear", 'a "b"', "é"]
)
def test_paths_are_taken_as_they_are(path: str) -> None:
    config = parse(as_settings(probe=path, manifest=path, out=path), PredictConfig)
    assert (config.probe, config.manifest, config.out) == (path, path, path)
    encoder = {"kind": "ours", "path": path}
    found = parse(
        [*as_settings(encoder=encoder, manifest="m", out="o"), "encoder.batch=3"], EmbedConfig
    )
    assert found.encoder.model_dump(include={"path", "batch"}) == {"path": path, "batch": 3}
