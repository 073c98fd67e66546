"""A full page of many encoders in a real browser: everything is drawn, plays and fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from support.judged import judged

from echojepa.models.encoder import EncoderConfig, VideoEncoder
from echojepa.pictures.attention_films import attention_section
from echojepa.pictures.films import Case, Clip, best_and_worst_section
from echojepa.pictures.report import Report, write_report
from echojepa.pictures.umap import umap_section
from echojepa.probes.fitting import BASELINE
from echojepa.probes.suites.robustness import SeverityPoint
from echojepa.probes.tasks import Task

pytestmark = pytest.mark.integration

NAMES = [f"an encoder with a long name, size {i}" for i in range(6)]
TASKS = [
    Task(name=f"task {i}", label="x", kind="regression", unit="%", cutoffs=(30.0, 40.0, 50.0))
    for i in range(4)
] + [Task(name="view", label="view", kind="classification")]
FRAMES = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8)


def full_report() -> Report:
    """Six encoders, five tasks, and every optional part."""
    results = [
        judged(task, name, 0.1 + 0.1 * i, i)
        for task in TASKS
        for i, name in enumerate((*NAMES, BASELINE))
    ]
    points = [
        SeverityPoint(r.features, r.task.name, kind, s, r.test, r.intervals, s, (s, s), s, {})
        for r in results
        for kind in ("shadow", "depth attenuation")
        for s in (0.0, 1.0)
        if r.features != BASELINE and r.task in TASKS[2:]
    ]
    ids = [str(i) for i in range(40)]
    features = np.random.default_rng(0).normal(size=(40, 60))
    encoder = VideoEncoder(EncoderConfig(width=24, depth=2, num_heads=2)).eval()
    case = Case("study 7", 38.0, 52.0, FRAMES, 8.0)
    return Report(
        results=results,
        curves=[],
        pictures=[],
        facts={},
        unread=[],
        severity=points,
        umap=umap_section(NAMES[0], ids, features, {"view": ["a", "b"] * 20, "ef": [*range(40)]}),
        films=best_and_worst_section("task 0", [case] * 4, [case] * 4, "%"),
        attention=attention_section(NAMES[0], encoder, [Clip("A4C", FRAMES, 8.0)], (0, 1)),
    )


def test_a_browser_shows_every_part_of_a_full_report(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    browser.get(write_report(full_report(), tmp_path / "report.html").as_uri())
    for image in browser.find_elements(By.TAG_NAME, "img"):
        assert image.is_displayed(), image.get_attribute("alt")
        assert int(image.get_property("naturalWidth")) > 0, image.get_attribute("alt")
    films = browser.find_elements(By.TAG_NAME, "video")
    assert len(films) == 8 + 2 * 3
    ready = "return [...document.querySelectorAll('video')].every(v => v.readyState > 2)"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(ready))
    for film in (films[0], films[-1]):
        browser.execute_script("arguments[0].scrollIntoView()", film)
        WebDriverWait(browser, 10).until(lambda _, f=film: float(f.get_property("currentTime")) > 0)
    headings = [h.text for h in browser.find_elements(By.TAG_NAME, "h2")]
    wanted = [
        "Comparison",
        *(t.name for t in TASKS),
        "Corrupted clips",
        f"Map of features: {NAMES[0]}",
    ]
    assert headings == [*wanted, "task 0", f"Attention: {NAMES[0]}"]
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 1000, "the page scrolls sideways"
    assert not browser.get_log("browser"), "the console of the browser complains"
