"""Invented people: names and dates planted where de-identification must find them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FAMILY = ("Testmann", "Probst", "Musterova", "Specimen", "Exemplar", "Dummett", "Placehold")
_GIVEN = ("Ada", "Bruno", "Chiara", "Dmitri", "Edda", "Farid", "Greta", "Hiro", "Ines")


@dataclass(frozen=True)
class Identity:
    """What a header and a picture could betray about a patient."""

    family: str
    given: str
    number: str
    """The hospital's own for the patient."""
    birth_date: str
    """YYYYMMDD."""

    @property
    def dicom_name(self) -> str:
        """As DICOM writes names."""
        return f"{self.family}^{self.given}"

    @property
    def banner(self) -> str:
        """As machines burn it in."""
        return f"{self.family.upper()}, {self.given}\n{self.number}"


def draw_identity(seed: int, patient: int) -> Identity:
    """The invented identity of a patient. A pure function."""
    rng = np.random.default_rng([seed, 5, patient])
    family, given = str(rng.choice(_FAMILY)), str(rng.choice(_GIVEN))
    number = f"MRN{rng.integers(1_000_000, 9_999_999)}"
    birth = f"{rng.integers(1930, 2015)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    return Identity(family, given, number, birth)
