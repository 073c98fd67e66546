"""A pretraining config that trains in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tiny_config(manifest: Path, run_dir: Path) -> dict[str, Any]:
    """A pretraining config as a plain tree; 48 px clips of 4 frames, width 48, depth 2."""
    return {
        "run_dir": str(run_dir),
        "seed": 1,
        "data": {
            "manifest": str(manifest),
            "where": {"split": None},
            "clip": {"num_frames": 4, "fps": 10.0, "size": 48},
            "max_bad_fraction": 0.2,
            "cpus_per_decoder": 0.5,
        },
        "model": {
            "encoder": {"width": 48, "depth": 2, "num_heads": 4, "patch_size": 8},
            "predictor": {"width": 24, "depth": 1, "num_heads": 2},
        },
        "objective": {
            "kind": "jepa",
            "masks": {
                "generators": [
                    {"num_blocks": 4, "spatial_scale": 0.15},
                    {"num_blocks": 2, "spatial_scale": 0.5},
                ]
            },
        },
        "optimizer": {
            "lr": {"peak": 1e-3, "start": 1e-4, "warmup_steps": 4},
            "precision": "float32",
            "max_micro_batch": 8,
        },
        "loop": {
            "num_steps": 8,
            "global_batch": 8,
            "checkpoint_every_steps": 4,
            "log_every_steps": 2,
            "image_every_steps": 4,
        },
    }
