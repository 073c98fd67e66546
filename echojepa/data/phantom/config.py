"""All settings of the phantom."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from echojepa.config import Strict, changeable


class PhantomConfig(Strict):
    """What `write_phantom` writes. Everything is a pure function of this."""

    num_studies: int = changeable(gt=0)
    """One study per patient."""
    seed: int = Field(default=0, ge=0)
    size: int = Field(default=112, ge=32)
    """Height and width of the frames, pixels; even."""
    num_frames: int = Field(default=48, gt=0)
    """Of every clip."""
    views: tuple[Literal["A4C", "PSAX-PM"], ...] = ("A4C", "PSAX-PM")
    """Of every study."""
    clips_per_view: int = Field(default=1, gt=0)
    """Takes of a view: the same heart, another probe position and another machine setting."""
    avi_fraction: float = Field(default=0.25, ge=0.0, le=1.0)
    """Share of clips written as Motion JPEG in AVI; the others are H.264 in MP4."""
    native_fps: tuple[float, ...] = (25.0, 30.0, 40.0, 50.0)
    """Frame rates; every clip gets one of them."""
    split_fractions: tuple[float, float, float] = changeable((0.7, 0.15, 0.15))
    """Shares of patients in train, val and test."""
    decorrelation_seconds: float = Field(default=0.6, gt=0.0)
    """How long muscle keeps its speckle: what tilting and breathing move out of the plane."""
    electronic_noise: float = Field(default=0.04, ge=0.0)
    """Amplitude relative to muscle at the far end of the sector, new in every frame."""

    @field_validator("size")
    @classmethod
    def _even(cls, size: int) -> int:
        if size % 2:
            raise ValueError("H.264 in 4:2:0 needs an even size")
        return size

    @field_validator("views")
    @classmethod
    def _distinct(cls, views: tuple[str, ...]) -> tuple[str, ...]:
        if not views or len(set(views)) != len(views):
            raise ValueError("name at least one view, and each only once")
        return views

    @field_validator("native_fps")
    @classmethod
    def _playable(cls, native_fps: tuple[float, ...]) -> tuple[float, ...]:
        if not native_fps or not all(1.0 <= rate <= 240.0 for rate in native_fps):
            raise ValueError("name at least one frame rate, all from 1 to 240")
        return native_fps

    @model_validator(mode="after")
    def _shares(self) -> PhantomConfig:
        shares = self.split_fractions
        if min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-6:
            raise ValueError("split_fractions are three shares that sum to 1")
        return self
