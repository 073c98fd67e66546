"""What a version of the phantom looks like is frozen: results on it stay comparable.

After a change that is meant to change pictures, raise `VERSION` in echojepa/data/phantom/config.py
and run `python tests/data_plane/test_phantom_frozen.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.paths import DATA, ROOT

from echojepa.config import load
from echojepa.phantom import PhantomConfig, render_clip
from echojepa.phantom.config import VERSION

FROZEN = DATA / "phantom_frames.npz"
BENCHMARK = ROOT / "configs" / "data" / "phantom.yaml"
CLIPS = ((0, "A4C"), (3, "PLAX"), (7, "PSAX-AV"), (11, "OTHER"))
SMALL = {"size": 64, "num_frames": 5, "colour_fraction": 0.6}


def rendered() -> dict[str, np.ndarray]:
    """Some frames and labels of the benchmark's config, smaller."""
    config = load(BENCHMARK, [f"{key}={value}" for key, value in SMALL.items()], PhantomConfig)
    found = {"version": np.array(VERSION)}
    for study, view in CLIPS:
        clip = render_clip(config, study, view)
        found[f"frames {study} {view}"] = clip.frames
        found[f"labels {study} {view}"] = np.array(list(clip.labels.values()))
    return found


def test_the_benchmark_looks_as_it_did_when_it_was_calibrated() -> None:
    with np.load(FROZEN) as frozen:
        now = rendered()
        assert set(now) == set(frozen.files)
        assert int(frozen["version"]) == VERSION, "make the frames of the new version, see above"
        for name, values in now.items():
            if name.startswith("labels"):
                assert values == pytest.approx(frozen[name], rel=1e-9), name
            elif name.startswith("frames"):
                # Other processors round otherwise: a grey level here and there.
                difference = np.abs(values.astype(float) - frozen[name])
                assert difference.mean() < 0.2, f"{name}: the phantom has changed, see above"


if __name__ == "__main__":
    np.savez_compressed(FROZEN, **rendered())
