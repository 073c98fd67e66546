"""Video files of every kind, written once, and a temporary folder of the tests' own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pydicom.data
import pytest
from support.clips import KINDS, write_clip


@pytest.fixture(scope="module", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the package caches under the system's temporary folder goes away with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("tmp")))
        yield


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one 60-frame clip of every kind, under the kind's name."""
    folder = tmp_path_factory.mktemp("videos")
    for kind in KINDS:
        write_clip(folder, kind)
    return folder


@pytest.fixture(scope="session")
def dicom() -> str:
    """A real ultrasound clip: 30 frames, 240 x 320, YBR_FULL_422, JPEG."""
    path = pydicom.data.get_testdata_file("examples_ybr_color.dcm")
    assert isinstance(path, str)
    return path
