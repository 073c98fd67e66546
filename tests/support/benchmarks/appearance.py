"""What a cine loop looks like, in numbers: the same measurement for real and for phantom clips."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

POLAR = (384, 192)
"""Range and beam samples of the resampled sector."""
GRAIN_CM = 0.8
"""What is smoother than this is anatomy and gain; what is left is grain."""
TISSUE_GREY = 25
"""Pixels whose local mean is brighter show tissue."""


@dataclass(frozen=True)
class Fan:
    """Geometry of a sector in pixels."""

    apex: tuple[float, float]
    """Column and row where its edges meet; it may lie above the picture."""
    half_angle_rad: float
    near_px: float
    """Radius of the first echoes: 0 of a phased array, more of a curved footprint."""
    far_px: float


@dataclass(frozen=True)
class Appearance:
    """Measured on one clip."""

    fan: Fan
    depth_cm: float
    levels: np.ndarray
    """Share of the sector's pixels [256] by grey level."""
    radial: np.ndarray
    """Autocorrelation of the grain along the beam, at `radial_cm`."""
    radial_cm: np.ndarray
    lateral: np.ndarray
    """Across the beams at mid-depth, at `lateral_cm`."""
    lateral_cm: np.ndarray
    temporal: np.ndarray
    """Correlation of the grain with itself later, at `temporal_seconds`."""
    temporal_seconds: np.ndarray


def measure(frames: np.ndarray, pixel_cm: float, frame_seconds: float) -> Appearance:
    """Measure grey frames [T, H, W]."""
    sector = moving_sector(frames)
    fan = fit_fan(sector)
    polar = np.stack([to_polar(frame, fan) for frame in frames])
    range_cm = (fan.far_px - fan.near_px) * pixel_cm / POLAR[0]
    sigma = GRAIN_CM / range_cm
    smooth = np.stack([cv2.GaussianBlur(p, (0, 0), sigmaX=sigma / 3, sigmaY=sigma) for p in polar])
    tissue = smooth.mean(axis=0) > TISSUE_GREY
    grain = (polar - smooth) * tissue
    beam_cm = 0.5 * (fan.near_px + fan.far_px) * pixel_cm * 2.0 * fan.half_angle_rad / POLAR[1]
    num_later = min(int(1.2 / frame_seconds), len(frames) - 4)
    return Appearance(
        fan=fan,
        depth_cm=fan.far_px * pixel_cm,
        levels=np.bincount(frames[:, sector].ravel(), minlength=256) / frames[:, sector].size,
        radial=autocorrelation(grain, axis=1, num_lags=30),
        radial_cm=np.arange(30) * range_cm,
        lateral=autocorrelation(grain[:, POLAR[0] // 3 : 2 * POLAR[0] // 3], axis=2, num_lags=30),
        lateral_cm=np.arange(30) * beam_cm,
        temporal=autocorrelation(grain, axis=0, num_lags=num_later),
        temporal_seconds=np.arange(num_later) * frame_seconds,
    )


def moving_sector(frames: np.ndarray) -> np.ndarray:
    """bool [H, W]: convex hull of the largest region that changes over time."""
    changing = (frames.std(axis=0) > 1.0).astype(np.uint8)
    changing = cv2.morphologyEx(changing, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(changing)
    largest = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    outline, _ = cv2.findContours(
        largest.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    hull = cv2.convexHull(np.concatenate(outline))
    return cv2.fillConvexPoly(np.zeros(frames.shape[1:], np.uint8), hull, 1).astype(bool)


def fit_fan(sector: np.ndarray) -> Fan:
    """Apex, angle and radii from straight lines through the upper edges."""
    rows = np.flatnonzero(sector.any(axis=1))
    upper = rows[len(rows) // 10 : len(rows) // 2]
    lefts = np.array([np.flatnonzero(sector[row])[0] for row in upper])
    rights = np.array([np.flatnonzero(sector[row])[-1] for row in upper])
    left, right = np.polyfit(upper, lefts, 1), np.polyfit(upper, rights, 1)
    row = (left[1] - right[1]) / (right[0] - left[0])
    column = float(np.polyval(left, row))
    half = 0.5 * (np.arctan(right[0]) - np.arctan(left[0]))
    y, x = np.nonzero(sector)
    radius = np.hypot(x - column, y - row)
    return Fan((column, float(row)), float(half), float(radius.min()), float(radius.max()))


def to_polar(frame: np.ndarray, fan: Fan) -> np.ndarray:
    """Grey levels float32 [ranges, beams]."""
    radius = fan.near_px + (np.arange(POLAR[0]) + 0.5) / POLAR[0] * (fan.far_px - fan.near_px)
    angle = fan.half_angle_rad * ((np.arange(POLAR[1]) + 0.5) / POLAR[1] * 2.0 - 1.0)
    x = fan.apex[0] + np.outer(radius, np.sin(angle))
    y = fan.apex[1] + np.outer(radius, np.cos(angle))
    maps = x.astype(np.float32), y.astype(np.float32)
    return cv2.remap(frame.astype(np.float32), *maps, cv2.INTER_LINEAR)


def autocorrelation(grain: np.ndarray, axis: int, num_lags: int) -> np.ndarray:
    """Correlation [num_lags] of what two pixels `lag` apart show, over all pairs."""
    moved = np.moveaxis(grain, axis, 0)
    size = len(moved)
    return np.array(
        [
            (moved[: size - lag] * moved[lag:]).sum()
            / np.sqrt(np.square(moved[: size - lag]).sum() * np.square(moved[lag:]).sum())
            for lag in range(num_lags)
        ]
    )


def half_width(correlation: np.ndarray, lags: np.ndarray) -> float:
    """Lag at which a correlation first falls below a half; the last lag if it never does."""
    below = np.flatnonzero(correlation < 0.5)
    if not len(below):
        return float(lags[-1])
    at = int(below[0])
    share = (correlation[at - 1] - 0.5) / (correlation[at - 1] - correlation[at])
    return float(lags[at - 1] + share * (lags[at] - lags[at - 1]))
