"""The phantom beside the two real cine loops that lie in public Python packages.

pytest -m soak tests/benchmarks/test_phantom_beside_real.py -s

draws docs/images/phantom_beside_real.png and prints the table of docs/phantom.md. Both real clips
are of one examination of one patient: a check of plausibility, not a population.
"""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from pydicom import dcmread
from pydicom.data import get_testdata_file
from support.benchmarks.appearance import Appearance, half_width, measure
from support.paths import ROOT

from echojepa.phantom import PhantomConfig, render_clip
from echojepa.phantom.gallery import list_exhibits

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]
PICTURE = ROOT / "docs" / "images" / "phantom_beside_real.png"
REAL = {"color3d_jpeg_baseline.dcm": "#b3261e", "examples_ybr_color.dcm": "#e07a1f"}
PHANTOM = PhantomConfig(num_studies=1, size=400, num_frames=60, overlays=False)
Shown = dict[str, tuple[Appearance, np.ndarray, str]]


def real_clips() -> Shown:
    """By file name: measurements, a frame, a colour."""
    shown: Shown = {}
    for name, colour in REAL.items():
        header = dcmread(str(get_testdata_file(name)))
        frames = header.pixel_array[..., 1]
        region = header.SequenceOfUltrasoundRegions[0]
        # The small clip is scaled down by two, and its region isn't.
        scale = 640 / frames.shape[2]
        pixel_cm = float(region.PhysicalDeltaX) * scale
        edges = (
            region.RegionLocationMinY0,
            region.RegionLocationMaxY1,
            region.RegionLocationMinX0,
            region.RegionLocationMaxX1,
        )
        top, bottom, left, right = (int(edge / scale) for edge in edges)
        inside = frames[:, top:bottom, left:right]
        seconds = float(header.FrameTime) / 1000.0
        shown[name] = (measure(inside, pixel_cm, seconds), inside[5], colour)
    return shown


def phantom_clips() -> Shown:
    """A healthy adult on each machine."""
    shown: Shown = {}
    for exhibit in list_exhibits(PHANTOM)["Machines"]:
        clip = render_clip(PHANTOM, exhibit.study, exhibit.view)
        measured = measure(clip.frames, clip.scanner.pixel_cm, 1.0 / clip.native_fps)
        shown[exhibit.caption] = (measured, clip.frames[5], "#1f5fa8")
    return shown


def draw(shown: Shown) -> None:
    """Frames above, curves below."""
    figure = Figure(figsize=(15.4, 8.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.3))
    for axes, (name, (_, frame, colour)) in zip(
        upper.subplots(1, len(shown)), shown.items(), strict=True
    ):
        axes.imshow(frame, cmap="gray", vmin=0, vmax=255)
        axes.set_title(name, color=colour, fontsize=10)
        axes.axis("off")
    panels = lower.subplots(1, 4)
    for name, (seen, _, colour) in shown.items():
        style = {"color": colour, "label": name, "alpha": 0.9 if name in REAL else 0.55}
        panels[0].semilogy(np.maximum(seen.levels, 1e-5), **style)
        panels[1].plot(seen.radial_cm * 10, seen.radial, **style)
        panels[2].plot(seen.lateral_cm * 10, seen.lateral, **style)
        panels[3].plot(seen.temporal_seconds, seen.temporal, **style)
    panels[0].set(title="grey levels inside the sector", xlabel="grey level", ylabel="share")
    panels[1].set(title="grain along the beam", xlabel="mm", xlim=(0, 8), ylabel="correlation")
    panels[2].set(title="grain across the beams, mid-depth", xlabel="mm", xlim=(0, 14))
    panels[3].set(title="grain over time, at fixed points", xlabel="seconds", xlim=(0, 1.2))
    for axes in panels:
        axes.grid(alpha=0.25)
    panels[0].legend(fontsize=8)
    figure.savefig(PICTURE, dpi=90)


def test_phantom_beside_real_clips() -> None:
    real, phantom = real_clips(), phantom_clips()
    draw({**real, **phantom})
    print("\n| clip | depth cm | half angle | near radius cm | median grey | share > 128 | "
          "radial mm | lateral mm | correlation 0.2 s later |")  # fmt: skip
    print("|---" * 9 + "|")
    rows: dict[str, list[float]] = {}
    for name, (seen, _, _) in {**real, **phantom}.items():
        pixel_cm = seen.depth_cm / seen.fan.far_px
        rows[name] = [
            seen.depth_cm,
            float(np.rad2deg(seen.fan.half_angle_rad)),
            seen.fan.near_px * pixel_cm,
            float(np.searchsorted(np.cumsum(seen.levels), 0.5)),
            float(seen.levels[129:].sum()),
            10 * half_width(seen.radial, seen.radial_cm),
            10 * half_width(seen.lateral, seen.lateral_cm),
            float(np.interp(0.2, seen.temporal_seconds, seen.temporal)),
        ]
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in rows[name]) + " |")
    own = np.array([rows[name] for name in phantom])
    other = np.array([rows[name] for name in real])
    # Within a factor of two of the real clips: depth, angle, and the grain in space and time.
    for column in (0, 1, 5, 6, 7):
        ratio = np.median(own[:, column]) / other[:, column].mean()
        assert 0.5 < ratio < 2.0, (column, ratio)
