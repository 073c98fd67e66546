"""One Ray cluster for all integration tests of a session, with the dashboard on; a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray
from selenium import webdriver

from echojepa.on_ray.connect import TRAIN_RESOURCE

NUM_CPUS = 2
NUM_SEATS = 4


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Two CPUs, room for four training workers: more workers than CPUs. Yields the address."""
    context = ray.init(
        address="local",
        num_cpus=NUM_CPUS,
        resources={TRAIN_RESOURCE: NUM_SEATS},
        object_store_memory=768 * 2**20,
        include_dashboard=True,
        log_to_driver=False,
        logging_level="ERROR",
    )
    address = context.address_info["gcs_address"]
    os.environ["RAY_ADDRESS"] = address
    yield address
    del os.environ["RAY_ADDRESS"]
    ray.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a window, cut off from the network."""
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options)
    driver.set_window_size(1000, 1400)
    yield driver
    driver.quit()
