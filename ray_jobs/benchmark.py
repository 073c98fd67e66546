"""A benchmark as a cluster job.

ray job submit --working-dir . -- python ray_jobs/benchmark.py configs/benchmark/FILE.yaml key=value
"""

import sys

from echojepa.config import load
from echojepa.errors import exit_codes
from echojepa.launch.benchmark import launch
from echojepa.launch.benchmark_arms import BenchmarkJob

if __name__ == "__main__":
    with exit_codes():
        launch(load(sys.argv[1], sys.argv[2:], BenchmarkJob))
