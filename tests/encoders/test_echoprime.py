"""EchoPrime: golden features from the published layout, and nothing but that layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.golden_adapters import clip, load_case, state_dict
from support.traps import Trap
from torch import nn

from echojepa.config import validate
from echojepa.encoders.echoprime import EchoPrimeNetwork, EchoPrimeSource
from echojepa.encoders.source import NetworkEncoder
from echojepa.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.integration  # Networks of full size: seconds each to build.

SPEC, OUTPUTS = load_case("echoprime")
ENTRIES = SPEC["checkpoint"]["tensors"]
WHOLE = clip("A", 16, 224, 224)
BLACK = np.where(np.arange(16)[:, None, None, None] < 10, WHOLE, np.uint8(0))
TOLERANCE = 2e-5
Weights = dict[str, torch.Tensor]


class Pass(NamedTuple):
    """What clips became on their way through the network."""

    pixels: torch.Tensor
    """[B, 3, 16, 224, 224], as the MViT got them."""
    features: NDArray[np.float32]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> NetworkEncoder:
    """With the golden weights."""
    file = tmp_path_factory.mktemp("echoprime") / "echo_prime_encoder.pt"
    torch.save(state_dict(ENTRIES, SPEC["rules"]), file)
    loaded = EchoPrimeSource(weights=str(file)).load()
    file.unlink()  # 140 MB
    return loaded


def run(encoder: NetworkEncoder, *clips: NDArray[np.uint8]) -> Pass:
    """Clips of one shape through the network, as one batch."""
    seen: list[torch.Tensor] = []
    inner = encoder.network.get_submodule("encoder")
    hook = inner.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].cpu()))
    values = encoder.encode(np.stack(clips))[0].float().cpu().numpy()
    hook.remove()
    return Pass(seen[0], np.asarray(values))


def skeleton() -> Weights:
    """All tensors of the published file, of one number each on disk."""
    return {name: torch.zeros(()).expand(shape) for name, shape, *_ in ENTRIES}


def written(content: dict[str, Any], folder: Path) -> str:
    torch.save(content, folder / "echo_prime_encoder.pt")
    return str(folder / "echo_prime_encoder.pt")


def farthest(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max())


def test_the_features_of_whole_clips_are_the_published_ones_and_do_not_mix(
    encoder: NetworkEncoder,
) -> None:
    found = run(encoder, WHOLE, BLACK)
    assert farthest(found.pixels[0, :, ::5, ::56, ::56].numpy(), OUTPUTS["A_input"]) < TOLERANCE
    assert farthest(found.features[0], OUTPUTS["A_feature"]) < TOLERANCE
    assert farthest(found.features[1], OUTPUTS["C_black_feature"]) < TOLERANCE


def test_small_frames_are_resized(encoder: NetworkEncoder) -> None:
    found = run(encoder, clip("B", 16, 112, 112))
    assert farthest(found.pixels[0, :, ::5, ::56, ::56].numpy(), OUTPUTS["B_input"]) < TOLERANCE
    assert farthest(found.features[0], OUTPUTS["B_feature"]) < TOLERANCE


def test_missing_frames_are_zeros_after_normalising_and_nothing_is_random(
    encoder: NetworkEncoder,
) -> None:
    found = run(encoder, WHOLE[:10])
    assert found.pixels.shape[2] == 16
    assert not found.pixels[:, :, 10:].any()
    assert farthest(found.features[0], OUTPUTS["C_feature"]) < TOLERANCE
    assert farthest(found.features[0], OUTPUTS["C_black_feature"]) > 1e-3
    assert np.array_equal(found.features, run(encoder, WHOLE[:10]).features)


def test_bfloat16_is_near(encoder: NetworkEncoder) -> None:
    # The golden weights magnify rounding: ten times more than freshly drawn ones.
    (found,) = run(NetworkEncoder(encoder.network, encoder.clip, "bfloat16"), WHOLE).features
    wanted = OUTPUTS["A_feature"]
    assert farthest(found, wanted) > TOLERANCE
    assert found @ wanted > 0.99 * np.linalg.norm(found) * np.linalg.norm(wanted)


def test_more_frames_than_it_reads_are_refused() -> None:
    tree = {"kind": "echoprime", "weights": "echo_prime_encoder.pt", "num_frames": 17}
    with pytest.raises(ConfigError, match="num_frames = 17: .* less than or equal to 16"):
        validate(tree, EchoPrimeSource, "probe.yaml")
    with pytest.raises(RuntimeError):  # never cut
        EchoPrimeNetwork(nn.Identity())(torch.zeros(1, 17, 8, 8, 3, dtype=torch.uint8))


def remove(weights: Weights) -> None:
    del weights["blocks.3.attn.rel_pos_t"]


def reshape(weights: Weights) -> None:
    weights["head.1.weight"] = torch.zeros(400, 768)


def add(weights: Weights) -> None:
    weights["view_head.weight"] = torch.zeros(11, 512)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (remove, "missing ['blocks.3.attn.rel_pos_t']"),
        (reshape, "other shape ['head.1.weight']"),
        (add, "unexpected ['view_head.weight']"),
    ],
)
def test_another_layout_is_refused_by_name(
    tmp_path: Path, change: Callable[[Weights], None], named: str
) -> None:
    weights = skeleton()
    change(weights)
    source = EchoPrimeSource(weights=written(weights, tmp_path))
    with pytest.raises(CheckpointError) as refusal:
        source.load()
    assert named in refusal.value.what
    assert refusal.value.where == source.weights


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    file = written({**skeleton(), "epoch": Trap(sprung)}, tmp_path)
    with pytest.raises(CheckpointError):
        EchoPrimeSource(weights=file).load()
    assert not sprung.exists()


def test_a_random_twin_repeats_by_its_seed(tmp_path: Path) -> None:
    file = written(skeleton(), tmp_path)  # its weights are all 0
    before = torch.get_rng_state()
    states = [
        EchoPrimeSource(weights=file, random_seed=seed).load().network.state_dict()
        for seed in (1, 1, 2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    name = "encoder.blocks.7.attn.qkv.weight"
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    assert not torch.equal(states[0][name], states[2][name])
    assert states[0][name].std() > 0.01


def test_the_settings_say_which_clips_it_wants(tmp_path: Path) -> None:
    source = EchoPrimeSource(weights=written(skeleton(), tmp_path), num_frames=12, fps=20.0)
    wanted = source.load().clip
    assert (wanted.num_frames, wanted.fps, wanted.size) == (12, 20.0, 224)
