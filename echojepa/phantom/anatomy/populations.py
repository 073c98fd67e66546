"""Populations: adults, children, and adults with poor acoustic windows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Population:
    """A kind of patient."""

    size: tuple[float, float]
    """Range of the body's linear scale."""
    heart_rate: tuple[float, float]
    """Beats per minute; log-uniform."""
    attenuation: float
    """Of the tissue, relative to a usual adult."""
    haze: float
    """Near-field clutter relative to a usual adult."""
    chest: float
    """Thickness of the chest wall relative to a usual adult's."""
    megahertz: float
    """Frequency relative to that for a usual adult: small bodies are seen with higher ones."""


POPULATIONS = {
    "adult": Population((0.92, 1.1), (45.0, 130.0), 1.0, 1.0, 1.0, 1.0),
    "paediatric": Population((0.5, 0.85), (75.0, 165.0), 0.85, 0.7, 0.55, 1.6),
    "obese": Population((0.98, 1.12), (50.0, 130.0), 1.25, 2.2, 1.6, 0.9),
}
"""By the name that the manifest's column `population` holds."""
