"""Benchmarks over noise as a cluster job.

ray job submit --working-dir . -- python ray_jobs/noise_curves.py configs/noise/FILE.yaml key=value
"""

import sys

from echojepa.benchmark.noise import NoiseConfig
from echojepa.config import load
from echojepa.errors import exit_codes
from echojepa.launch.noise import launch

if __name__ == "__main__":
    with exit_codes():
        launch(load(sys.argv[1], sys.argv[2:], NoiseConfig))
