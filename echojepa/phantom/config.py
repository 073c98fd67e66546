"""All settings of the phantom."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from echojepa.config import Strict, changeable
from echojepa.phantom.machine.vendors import VendorName
from echojepa.phantom.view.views import ViewName

VERSION = 2
"""Of the data that a config gives: raised whenever the same config would give other pixels."""


class PhantomConfig(Strict):
    """What `write_phantom` writes. Everything is a pure function of this."""

    command = "phantom"

    num_studies: int = changeable(gt=0)
    """Studies to write; more can be added to a folder later."""
    seed: int = Field(default=0, ge=0)
    """Of everything that is drawn."""
    size: int = Field(default=112, ge=32)
    """Height and width of the frames, pixels; even."""
    num_frames: int = Field(default=48, gt=0)
    """Of every clip."""
    views: tuple[ViewName, ...] = ("A4C", "A2C", "PLAX", "PSAX-AV", "PSAX-MV", "PSAX-PM")
    """Of every study."""
    clips_per_view: int = Field(default=1, gt=0)
    """Takes of a view: the same heart, another try with the probe and other machine settings."""

    follow_up_fraction: float = Field(default=0.25, ge=0.0, lt=1.0)
    """Chance that a study is a later one of the patient before; of four studies the first is not,
    and a patient has four at most."""
    paediatric_fraction: float = Field(default=0.15, ge=0.0, le=1.0)
    """Share of patients who are children: small, fast hearts at a small depth."""
    obese_fraction: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of patients with poor windows: attenuation, haze, a thick chest wall."""
    wall_motion_fraction: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of patients with a wall that moves too little or bulges."""
    fibrillation_fraction: float = Field(default=0.08, ge=0.0, le=1.0)
    """Share of patients whose beats are irregular and whose atria don't contract."""
    vendors: tuple[VendorName, ...] = ("aster", "boreal", "cygnus", "dorado", "elara")
    """Machines; a patient is always seen on those of one vendor."""
    held_out_vendor: VendorName | None = "elara"
    """All patients of this vendor are in the split test; null holds none out."""
    native_fps: tuple[float, ...] | None = None
    """Frame rates; every clip gets one of them. Null leaves it to the vendors, 20 to 80."""
    colour_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of clips with a colour Doppler box."""
    overlays: bool = True
    """Burn in what machines do: a logo, settings, an electrocardiogram."""

    decorrelation_seconds: float = Field(default=0.35, gt=0.0)
    """Time in which the correlation of resting muscle's echo intensity falls to 1/e."""
    speckle_contrast: float = Field(default=1.0, ge=0.0, le=1.0)
    """1 is fully developed speckle, 0 shows the tissue's local mean brightness (in decibels)."""
    electronic_noise: float = Field(default=0.04, ge=0.0)
    """Amplitude relative to muscle at the far end of the sector, new in every frame."""

    layout: Literal["flat", "echonet_dynamic", "mimic_iv_echo"] = "flat"
    """How files are named, and which lists lie beside them. `echonet_dynamic` wants views=[A4C] and
    avi_fraction=1, `mimic_iv_echo` wants dicom_fraction=1 and avi_fraction=0."""
    avi_fraction: float = Field(default=0.25, ge=0.0, le=1.0)
    """Share of clips written as Motion JPEG in AVI; what is neither is H.264 in MP4."""
    dicom_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of clips written as multi-frame DICOM, half of them JPEG in YBR, half plain RGB."""
    planted_identities: bool = False
    """Plant invented names in DICOM headers, and in all pictures: for tests of what removes them.
    `identities.csv` says what was planted."""
    split_fractions: tuple[float, float, float] = changeable((0.7, 0.15, 0.15))
    """Shares of patients in train, val and test, the held-out vendor's aside."""

    @field_validator("size")
    @classmethod
    def _even(cls, size: int) -> int:
        if size % 2:
            raise ValueError("H.264 in 4:2:0 needs an even size")
        return size

    @field_validator("views", "vendors")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) != len(names):
            raise ValueError("name at least one, and each only once")
        return names

    @field_validator("native_fps")
    @classmethod
    def _playable(cls, native_fps: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if native_fps is not None and (
            not native_fps or not all(1.0 <= rate <= 240.0 for rate in native_fps)
        ):
            raise ValueError("name at least one frame rate, all from 1 to 240")
        return native_fps

    @model_validator(mode="after")
    def _shares(self) -> PhantomConfig:
        shares = self.split_fractions
        if min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-6:
            raise ValueError("split_fractions are three shares that sum to 1")
        if self.paediatric_fraction + self.obese_fraction > 1.0:
            raise ValueError("paediatric_fraction and obese_fraction are more than all patients")
        if self.planted_identities and not self.overlays:
            raise ValueError("planted_identities are burned in: that needs overlays")
        if self.avi_fraction + self.dicom_fraction > 1.0:
            raise ValueError("avi_fraction and dicom_fraction are more than all clips")
        if self.layout == "mimic_iv_echo" and self.dicom_fraction < 1.0:
            raise ValueError("MIMIC-IV-Echo is all DICOM: dicom_fraction=1 avi_fraction=0")
        if self.layout == "echonet_dynamic" and (self.views != ("A4C",) or self.avi_fraction < 1.0):
            raise ValueError(
                "EchoNet-Dynamic has one view and one format: views=[A4C] avi_fraction=1"
            )
        if (self.held_out_vendor,) == self.vendors:
            raise ValueError("held_out_vendor is the only one of vendors")
        return self
