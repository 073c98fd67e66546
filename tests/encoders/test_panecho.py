"""PanEcho: golden features from the published layout, and nothing but that layout."""

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

from echojepa.encoders.panecho import PanEchoNetwork, PanEchoSource
from echojepa.encoders.source import NetworkEncoder
from echojepa.errors import CheckpointError

pytestmark = pytest.mark.integration  # Networks of full size: seconds each to build.

SPEC, OUTPUTS = load_case("panecho")
ENTRIES = SPEC["checkpoint"]["tensors"]
CASES = {
    "A": clip("A", 16, 224, 224),
    "B": clip("B", 16, 112, 112),
    "C": clip("A", 8, 224, 224),
}
TOLERANCE = 1e-5
Weights = dict[str, torch.Tensor]


class Pass(NamedTuple):
    """What one clip became on its way through the network."""

    images: torch.Tensor
    """[T, 3, 224, 224], as the ConvNeXt got them."""
    image_features: torch.Tensor
    features: NDArray[np.float32]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> NetworkEncoder:
    """With the golden weights, in a file as the training script writes it."""
    file = tmp_path_factory.mktemp("panecho") / "panecho.pt"
    weights = state_dict(ENTRIES, SPEC["rules"])
    torch.save({"weights": weights, "optimizer": {"state": {0: torch.zeros(3)}}, "epoch": 3}, file)
    loaded = PanEchoSource(weights=str(file)).load()
    file.unlink()  # 170 MB
    return loaded


@pytest.fixture(scope="module")
def passes(encoder: NetworkEncoder) -> dict[str, Pass]:
    """Every golden clip through the network, once."""
    seen: dict[str, torch.Tensor] = {}

    def note(_: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.update(images=inputs[0].cpu(), image_features=output.cpu())

    hook = encoder.network.get_submodule("encoder.model").register_forward_hook(note)
    found = {name: Pass(features=encode(encoder, c[None])[0], **seen) for name, c in CASES.items()}
    hook.remove()
    return found


def encode(encoder: NetworkEncoder, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features as float32."""
    values = encoder.encode(clips)[0].float().cpu().numpy()
    return np.asarray(values)


def skeleton() -> Weights:
    """All tensors of the published file, of one number each on disk."""
    return {name: torch.zeros(()).expand(shape) for name, shape, *_ in ENTRIES}


def written(weights: Weights, folder: Path) -> str:
    torch.save({"weights": weights}, folder / "panecho.pt")
    return str(folder / "panecho.pt")


def farthest(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max())


@pytest.mark.parametrize("case", CASES)
def test_the_features_are_the_published_ones(passes: dict[str, Pass], case: str) -> None:
    found = passes[case]
    planes = found.images[:, :, ::56, ::56].numpy()
    assert farthest(planes, OUTPUTS[f"{case}_input_planes"]) < TOLERANCE
    images = found.image_features.numpy()
    assert farthest(images, OUTPUTS[f"{case}_image_features"]) < TOLERANCE
    assert farthest(found.features, OUTPUTS[f"{case}_feature"]) < TOLERANCE


def test_one_image_per_frame_would_be_wrong(
    encoder: NetworkEncoder, passes: dict[str, Pass]
) -> None:
    network = encoder.network
    assert isinstance(network, PanEchoNetwork)
    planes = passes["A"].images.reshape(3, 16, 224, 224)
    with torch.inference_mode():
        images = planes.transpose(0, 1)[None].to(next(network.parameters()).device)
        found = network.pool(images)[0].cpu().numpy()
    assert farthest(found, OUTPUTS["A_feature_if_frames_were_permuted_WRONG"]) < TOLERANCE
    assert farthest(found, OUTPUTS["A_feature"]) > 0.5


def test_clips_of_a_batch_do_not_mix_and_nothing_is_random(encoder: NetworkEncoder) -> None:
    clips = np.stack([clip("A", 2, 64, 64), clip("B", 2, 64, 64)])
    together = encode(encoder, clips)
    assert np.array_equal(together, encode(encoder, clips))
    alone = np.concatenate([encode(encoder, one[None]) for one in clips])
    assert farthest(together, alone) < TOLERANCE
    assert farthest(together[0], together[1]) > 1e-3


def test_bfloat16_is_near(encoder: NetworkEncoder) -> None:
    clips = clip("A", 2, 224, 224)[None]
    wanted = encode(encoder, clips)
    found = encode(NetworkEncoder(encoder.network, encoder.clip, "bfloat16"), clips)
    assert 0 < farthest(found, wanted) < 0.1


def remove(weights: Weights) -> None:
    del weights["encoder.transformer.layers.2.norm1.bias"]


def reshape(weights: Weights) -> None:
    weights["encoder.encoder.model.features.0.0.bias"] = torch.zeros(97)


def deepen(weights: Weights) -> None:
    weights["encoder.transformer.layers.4.norm1.bias"] = torch.zeros(768)


def keep_the_linear(weights: Weights) -> None:
    weights["encoder.encoder.model.classifier.2.bias"] = torch.zeros(1000)


def hide_a_head(weights: Weights) -> None:
    weights["encoder.EF_head.1.bias"] = torch.zeros(1)


def add_a_stranger(weights: Weights) -> None:
    weights["transformer.layers.0.norm1.bias"] = torch.zeros(768)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (remove, "missing ['transformer.layers.2.norm1.bias']"),
        (reshape, "other shape ['encoder.model.features.0.0.bias']"),
        (deepen, "unexpected ['transformer.layers.4.norm1.bias']"),
        (keep_the_linear, "unexpected ['encoder.model.classifier.2.bias']"),
        (hide_a_head, "unexpected ['EF_head.1.bias']"),
        (add_a_stranger, "not of PanEcho: ['transformer.layers.0.norm1.bias']"),
    ],
)
def test_another_layout_is_refused_by_name(
    tmp_path: Path, change: Callable[[Weights], None], named: str
) -> None:
    weights = skeleton()
    change(weights)
    source = PanEchoSource(weights=written(weights, tmp_path))
    with pytest.raises(CheckpointError) as refusal:
        source.load()
    assert named in refusal.value.what
    assert refusal.value.where == source.weights


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"weights": skeleton(), "optimizer": Trap(sprung)}, tmp_path / "panecho.pt")
    with pytest.raises(CheckpointError):
        PanEchoSource(weights=str(tmp_path / "panecho.pt")).load()
    assert not sprung.exists()


def test_a_random_twin_repeats_by_its_seed(tmp_path: Path) -> None:
    file = written(skeleton(), tmp_path)  # its weights are all 0
    before = torch.get_rng_state()
    states = [
        PanEchoSource(weights=file, random_seed=seed).load().network.state_dict()
        for seed in (1, 1, 2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    name = "transformer.layers.3.linear1.weight"
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    assert not torch.equal(states[0][name], states[2][name])
    assert states[0][name].std() > 0.01
    assert states[0]["encoder.model.features.7.2.block.3.weight"].std() > 0.01


def test_the_settings_say_which_clips_it_wants(tmp_path: Path) -> None:
    source = PanEchoSource(weights=written(skeleton(), tmp_path), num_frames=8, fps=50.0)
    wanted = source.load().clip
    assert (wanted.num_frames, wanted.fps, wanted.size) == (8, 50.0, 224)
