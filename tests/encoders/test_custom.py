"""A user's own encoder by its Python path: used as it is, or refused with a reason."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.frozen import features

from echojepa.config import validate
from echojepa.data.sampling import ClipConfig
from echojepa.encoders.custom import CustomSource
from echojepa.errors import ConfigError

MODULE = """
import numpy as np
import torch

from echojepa.data.sampling import ClipConfig
from echojepa.encoders.frozen import PooledFeatures


class Still:
    clip = ClipConfig()

    def encode(self, clips):
        return PooledFeatures(torch.zeros(len(clips), 2))


class Brightness:
    def __init__(self, scale, seed=None):
        self.clip = ClipConfig(num_frames=2, fps=5.0, size=8)
        self.scale, self.seed = scale, seed

    def encode(self, clips):
        values = torch.from_numpy(clips).float().mean(dim=(1, 2, 3)) * self.scale
        return PooledFeatures(values)


def build(scale, bins=()):
    assert bins in ((), [1, {"two": None}])
    return Brightness(scale)


def seeded(scale=1.0, random_seed=0, precision="float32"):
    return Brightness(scale, (random_seed, precision))


def keywords(**given):
    return Brightness(1.0)


def blind():
    return object()


def unfinished():
    return Still


def failing():
    raise RuntimeError("no such weights")


number = 3
"""
CLIPS = np.random.default_rng(0).integers(0, 256, (2, 2, 8, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the user's, where Python finds them."""
    package = tmp_path / "users_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "encoders.py").write_text(MODULE)
    (package / "needy.py").write_text("import a_module_that_nobody_has\n")
    (package / "torn.py").write_text("def build(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()


def custom(function: str, **changes: Any) -> CustomSource:
    return CustomSource(factory=f"users_package.encoders:{function}", **changes)


def test_a_users_own_encoder_is_used() -> None:
    tree = {
        "kind": "custom",
        "factory": "users_package.encoders:build",
        "settings": {"scale": 2, "bins": [1, {"two": None}]},
        "batch": 3,
    }
    source = pickle.loads(pickle.dumps(validate(tree, CustomSource, "test")))
    assert source.batch == 3
    encoder = source.load()
    assert encoder.clip == ClipConfig(num_frames=2, fps=5.0, size=8)
    assert np.allclose(features(encoder, CLIPS), 2 * CLIPS.mean(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("a_package_that_nobody_has.x:build", "cannot be imported: No module named 'a_package"),
        ("users_package.needy:build", "No module named 'a_module_that_nobody_has'"),
        ("users_package.torn:build", "cannot be imported: invalid syntax"),
        ("users_package.encoders:missing", "users_package.encoders has no function 'missing'"),
        ("users_package.encoders:number", "has no function 'number'"),
        ("users_package.encoders:blind", "returns <object object .*which is no encoder"),
        ("users_package.encoders:unfinished", "returns <class .*which is no encoder"),
        ("users_package.encoders:build", "does not take these settings: missing.*'scale'"),
    ],
)
def test_what_is_no_encoder_is_refused(factory: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CustomSource(factory=factory).load()


@pytest.mark.parametrize("factory", ["module", "a.b:", ":build", "a b:c", "a:b.c()", "/a/b.py:c"])
def test_a_path_of_another_form_is_refused(factory: str) -> None:
    with pytest.raises(ConfigError, match="factory"):
        validate({"factory": factory}, CustomSource, "test")


def test_an_unknown_argument_is_refused_before_the_call() -> None:
    with pytest.raises(ConfigError, match="does not take these settings: .*'scales'"):
        custom("build", settings={"scale": 1.0, "scales": 2.0}).load()


def test_an_error_of_the_users_code_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="no such weights"):
        custom("failing").load()


def test_a_seed_and_a_precision_are_passed_on() -> None:
    given: Any = custom("seeded", random_seed=5, precision="bfloat16", settings={"scale": 3}).load()
    assert (given.scale, given.seed) == (3, (5, "bfloat16"))
    default: Any = custom("seeded").load()
    assert default.seed == (0, "float32")


@pytest.mark.parametrize("setting", [{"random_seed": 0}, {"precision": "tf32"}])
@pytest.mark.parametrize("function", ["build", "keywords"])
def test_a_seed_or_precision_that_would_change_nothing_is_refused(
    function: str, setting: dict[str, Any]
) -> None:
    (name,) = setting
    with pytest.raises(ConfigError, match=f"{name} = .* cannot be passed on.*argument {name}"):
        custom(function, settings={"scale": 1.0}, **setting).load()


def test_a_seed_is_said_once() -> None:
    with pytest.raises(ConfigError, match="beside `settings` alone"):
        custom("seeded", random_seed=5, settings={"random_seed": 6}).load()
