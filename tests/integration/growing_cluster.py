"""Pretrains on a one-node cluster that gets a second node on the way. Run by test_elastic.py.

python growing_cluster.py CONFIG.yaml GROW_AT_STEP
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import ray
from nodes import HEAD, NODE
from ray.cluster_utils import Cluster

from echojepa.config import load
from echojepa.launch.pretrain import PretrainJob, run
from echojepa.train.run_folder import read_lines


def main(config: str, grow_at_step: int) -> None:
    job = load(config, [], PretrainJob)
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    ray.init(address=cluster.address, log_to_driver=False)
    failures: list[BaseException] = []

    def train() -> None:
        try:
            run(job, show_progress=False)
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    metrics = Path(job.run_dir) / "metrics.jsonl"
    while thread.is_alive() and not any(m["step"] >= grow_at_step for m in read_lines(metrics)):
        time.sleep(0.1)
    cluster.add_node(**NODE)
    thread.join()
    ray.shutdown()
    cluster.shutdown()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
