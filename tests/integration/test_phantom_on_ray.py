"""Phantoms rendered by a real Ray cluster: the same bytes, whatever happens; the gallery plays."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from support.command import echojepa
from support.paths import contents

from echojepa.errors import ClusterError
from echojepa.launch.phantom import launch
from echojepa.on_ray.connect import ClusterConfig
from echojepa.on_ray.tasks import map_on_ray
from echojepa.phantom import PhantomConfig, write_phantom
from echojepa.phantom.gallery import list_exhibits

pytestmark = pytest.mark.integration
CONFIG = PhantomConfig(
    num_studies=6,
    size=48,
    num_frames=10,
    views=("A4C", "PLAX"),
    dicom_fraction=0.3,
    colour_fraction=0.3,
)


def test_a_cluster_writes_the_bytes_that_one_process_writes(
    ray_cluster: str, tmp_path: Path
) -> None:
    write_phantom(CONFIG, tmp_path / "alone")
    manifest = launch(CONFIG, tmp_path / "ray", ClusterConfig(address=ray_cluster))
    assert manifest == tmp_path / "ray" / "manifest.parquet"
    assert contents(tmp_path / "ray") == contents(tmp_path / "alone")


def test_killed_processes_are_replaced(ray_cluster: str, tmp_path: Path) -> None:
    """Every third task kills its process the first time that it runs."""

    def dies_once(number: int) -> int:
        died = tmp_path / str(number)
        if number % 3 == 0 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)  # what a kernel short of memory does
        return number**2

    assert list(map_on_ray(dies_once, range(8))) == [number**2 for number in range(8)]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_clip_that_kills_every_process_is_said(ray_cluster: str) -> None:
    def die(number: int) -> None:
        """What a kernel short of memory does."""
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ClusterError, match=r"was killed.*fewer CPUs"):
        list(map_on_ray(die, [1]))


def test_the_gallery_plays_in_a_browser(tmp_path: Path, browser: webdriver.Chrome) -> None:
    page = tmp_path / "gallery.html"
    done = echojepa("phantom-gallery", page, "size=64", "num_frames=12", timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(page)
    browser.get(page.as_uri())
    films = browser.find_elements(By.TAG_NAME, "video")
    rooms = list_exhibits(PhantomConfig(num_studies=1))
    captions = [exhibit.caption for room in rooms.values() for exhibit in room]
    assert [film.get_attribute("aria-label") for film in films] == captions
    assert [h.text for h in browser.find_elements(By.TAG_NAME, "h2")] == list(rooms)
    playing = "return [...document.querySelectorAll('video')].every(v => v.readyState > 2)"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(playing))
    for film in films:
        browser.execute_script("arguments[0].scrollIntoView()", film)
        assert int(film.get_property("videoWidth")) == 64, film.get_attribute("aria-label")
    WebDriverWait(browser, 10).until(lambda _: float(films[0].get_property("currentTime")) > 0)
    assert not browser.get_log("browser"), "the console of the browser complains"
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 1000, "the page scrolls sideways"
