"""One Ray cluster for all integration tests of a session, with the dashboard on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray

from echojepa.launch.connect import TRAIN_RESOURCE

NUM_CPUS = 2
NUM_SEATS = 4


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Two CPUs, seats for four training workers: more workers than CPUs. Yields the address."""
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
