"""The page of a whole evaluation: maps, attention, the best and the worst predictions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.bench import EF, PRETRAINED, RANDOM, Bench

from echojepa.errors import ConfigError
from echojepa.evaluate import evaluate
from echojepa.pictures.evaluation import PageConfig

pytestmark = pytest.mark.integration  # UMAP is compiled first, which takes seconds.


@pytest.fixture(scope="module")
def page(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With everything that can play."""
    out = tmp_path_factory.mktemp("page")
    how = PageConfig(predictions=2, attention=1, attention_layers=(1,), attention_heads=(0, 3))
    evaluate(bench.config(out, page=how), bench.here)
    return (out / "report.html").read_text()


def test_trained_encoders_have_a_map_in_every_colour(page: str) -> None:
    maps = re.findall(r"<h2>Map of features: (.*?)</h2>", page)
    assert maps == [PRETRAINED]
    assert "Silhouette of the classes" in page


def test_the_best_and_the_worst_predictions_play_with_prediction_and_truth(page: str) -> None:
    best = page[page.index("ef: best and worst predictions") :]
    part = best[: best.index("</section>")]
    assert part.count("<video") == 2  # three test studies: one of each at most
    assert len(re.findall(r"predicted -?[\d.]+, true [\d.]+ %", part)) >= 2


def test_attention_plays_for_the_layers_and_heads_asked_for(page: str) -> None:
    part = page[page.index(f"<h2>Attention: {PRETRAINED}") :]
    captions = re.findall(r"layer 1 of 0-1, head (\d): (received|given)", part)
    assert sorted(set(captions)) == [
        (head, kind) for head in ("0", "3") for kind in ("given", "received")
    ]
    assert f"Attention: {RANDOM}" not in page


def test_a_layer_that_is_not_there_is_an_error(bench: Bench, tmp_path: Path) -> None:
    how = PageConfig(maps=False, predictions=0, attention=1, attention_layers=(7,))
    with pytest.raises(ConfigError, match="no such layer"):
        evaluate(bench.config(tmp_path, tasks=(EF,), page=how), bench.here)
