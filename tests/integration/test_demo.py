"""`echojepa demo`, shortened by its own settings, and its report in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from support.command import echojepa

from echojepa.data.manifest.file import read_manifest
from echojepa.models.weights import load_encoder

pytestmark = pytest.mark.integration

SHORT = (
    "phantom.num_studies=16",
    "phantom.split_fractions=[0.6, 0.2, 0.2]",
    "phantom.num_frames=40",
    "pretrain.loop.num_steps=8",
    "pretrain.loop.checkpoint_every_steps=4",
    "pretrain.loop.log_every_steps=2",
    "pretrain.loop.probe_every_steps=4",
    "pretrain.loop.image_every_steps=4",
    "pretrain.optimizer.lr.warmup_steps=2",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished demo, run as a user runs it, on a cluster of its own."""
    out = tmp_path_factory.mktemp("demo") / "out"
    done = echojepa("demo", out, *SHORT, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "audit: 128 samples, each exactly once" in done.stderr
    assert str(out / "report.html") in done.stdout
    return out


def test_it_leaves_videos_a_run_an_encoder_and_results(demo: Path) -> None:
    manifest = read_manifest(demo / "phantom" / "manifest.parquet")
    suffixes = {Path(uri).suffix for uri in manifest["uri"].to_pylist()}
    assert suffixes == {".mp4", ".avi"}
    assert load_encoder(demo / "run" / "encoder").config.width == 128
    results = json.loads((demo / "results.json").read_text())["results"]
    assert {(r["task"], r["features"]) for r in results} == {
        (task, features)
        for task in ("ejection fraction", "view")
        for features in ("pretrained", "pretrained (random weights)", "predict mean")
    }
    assert list((demo / "run" / "tensorboard").glob("events.out.tfevents.*"))


def test_the_readme_embeds_a_clip(demo: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace('"demo/', f'"{demo}/'), names)
    shape = code.rsplit("# ", 1)[1].split(":")[0]
    assert list(names["features"].shape) == json.loads(shape)


def test_a_browser_shows_the_whole_report(demo: Path, browser: webdriver.Chrome) -> None:
    browser.get((demo / "report.html").as_uri())
    assert not browser.get_log("browser"), "the console of the browser complains"
    images = browser.find_elements(By.TAG_NAME, "img")
    shown = {image.get_attribute("alt"): image for image in images}
    assert {"training curves", "clip and masks"} <= set(shown)
    assert any("ejection fraction" in (alt or "") for alt in shown)
    for image in images:
        assert image.is_displayed()
        assert int(image.get_property("naturalWidth")) > 0, image.get_attribute("alt")
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 1000, "the page scrolls sideways"
    headings = [h.text for h in browser.find_elements(By.TAG_NAME, "h2")]
    assert {"ejection fraction", "view", "Pretraining"} <= set(headings)
