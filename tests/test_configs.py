"""Every shipped YAML file loads into its model, and every recipe fits together.

The folder of a file decides what it is. Settings that name one site's disks are given here. A
`base*.yaml` is the common part of others and is checked through them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from support.paths import ROOT
from support.ranks import pretrain_plain
from support.teachers import write_teacher

from echojepa.config import Strict, amend, load, to_tree, validate
from echojepa.cost import flops_per_clip
from echojepa.data.stream import segment_after
from echojepa.models.attention import Grid
from echojepa.models.encoder import VideoEncoder
from echojepa.models.predictor import Predictor
from echojepa.objectives.token_masks import Masks, sampler_of
from echojepa.phantom import PhantomConfig
from echojepa.randomness import Seeds
from echojepa.train.engine import at_batch

FILES = sorted((ROOT / "configs").rglob("*.y*ml"))
CONFIGS = [path for path in FILES if not path.stem.startswith("base")]
SITE = {
    "data": [],
    "pretrain": ["run_dir=run", "data.manifest=manifest.parquet"],
    "evaluate": ["encoders.pretrained.path=encoder", "manifest=manifest.parquet", "out=out"],
    "sweep": ["out=out"],
    "benchmark": ["out=out"],
    "noise": ["out=out"],
}
SITE_OF_FILE = {"vit_small_salt": ["objective.target=teacher"]}  # besides those of its folder


def site(path: Path) -> list[str]:
    """The settings that a file leaves to the user."""
    return [*SITE[path.parent.name], *SITE_OF_FILE.get(path.stem, [])]


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_teacher(tmp_path / "teacher", patch_size=16)


def model_of(folder: str) -> type[Strict]:
    """What a folder's files describe. Ray is imported here, late, because that takes seconds."""
    from echojepa.benchmark.noise import NoiseConfig
    from echojepa.launch.benchmark_arms import BenchmarkJob
    from echojepa.launch.evaluate import EvaluateJob
    from echojepa.launch.pretrain import PretrainJob
    from echojepa.launch.sweep import SweepJob

    models: dict[str, type[Strict]] = {
        "data": PhantomConfig,
        "pretrain": PretrainJob,
        "evaluate": EvaluateJob,
        "sweep": SweepJob,
        "benchmark": BenchmarkJob,
        "noise": NoiseConfig,
    }
    return models[folder]


@cache
def check_masks(masks: Masks, grid: Grid) -> None:
    """Raises if the masks do not fit; slow, and the same for many recipes."""
    sampler_of(masks, grid, Seeds(0))


def shipped(folder: str) -> pytest.MarkDecorator:
    """Runs a test on every file of a folder."""
    files = [path for path in CONFIGS if path.parent.name == folder]
    return pytest.mark.parametrize("path", files, ids=[path.stem for path in files])


def test_every_file_lies_in_a_folder_that_says_what_it_is() -> None:
    assert {path.parent.name for path in FILES} <= SITE.keys()
    assert all(path.parent.parent == ROOT / "configs" for path in FILES)
    for folder in ("data", "pretrain", "evaluate"):
        assert ROOT / "configs" / folder / "demo.yaml" in CONFIGS


def test_every_base_is_extended() -> None:
    trees = {path: yaml.safe_load(path.read_text()) for path in FILES}
    parents = {(p.parent / t["extends"]).resolve() for p, t in trees.items() if "extends" in t}
    assert parents <= set(FILES)
    assert set(FILES) - set(CONFIGS) <= parents


@pytest.mark.parametrize("path", CONFIGS, ids=[f"{p.parent.name}/{p.stem}" for p in CONFIGS])
def test_every_file_loads(path: Path) -> None:
    load(path, site(path), model_of(path.parent.name))


@pytest.mark.parametrize("path", FILES, ids=[f"{p.parent.name}/{p.stem}" for p in FILES])
def test_no_file_knows_a_sites_disks(path: Path) -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict | list):
            items = value.values() if isinstance(value, dict) else value
            return [text for item in items for text in texts(item)]
        return [value] if isinstance(value, str) else []

    found = texts(yaml.safe_load(path.read_text()))
    assert not [text for text in found if text.startswith(("/", "~")) or "://" in text]


@shipped("pretrain")
def test_masks_fit_the_grid_and_batches_the_workers(path: Path) -> None:
    from echojepa.launch.pretrain import PretrainJob
    from echojepa.pretrain import cut_batch

    job = load(path, site(path), PretrainJob)
    check_masks(job.objective.masks, job.grid())
    for num_workers in {job.cluster.num_workers, job.cluster.max_workers or 1}:
        shape = cut_batch(job, num_workers)
        assert shape.micro_batch <= job.optimizer.max_micro_batch


PUBLISHED_MILLIONS = {"vit_giant": 1012, "vit_large": 304, "vit_base": 86, "vit_small": 22}


@shipped("pretrain")
def test_recipes_build_with_the_published_number_of_parameters(path: Path) -> None:
    from echojepa.launch.pretrain import PretrainJob

    job = load(path, site(path), PretrainJob)
    with torch.device("meta"):
        encoder = VideoEncoder(job.model.encoder)
        predictor = Predictor(job.model.predictor, job.model.encoder)
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    size = next((m for name, m in PUBLISHED_MILLIONS.items() if path.stem.startswith(name)), None)
    assert (size is None) == (path.stem in ("demo", "bench_small", "bench_large"))
    if size is not None:
        assert millions == pytest.approx(size, rel=0.001 if size > 1000 else 0.02)
        if job.objective.kind != "mae":
            blocks = sum(p.numel() for p in predictor.predictor_blocks.parameters()) / 1e6
            assert blocks == pytest.approx(21.3 * job.model.predictor.depth / 12, abs=0.1)
            if job.model.encoder.num_levels == 1:
                whole = sum(p.numel() for p in predictor.parameters()) / 1e6
                assert whole == pytest.approx(22, abs=1)


RATES = {
    "vit_giant": (2.083e-5, 1.09375e-4, None),
    "vit_giant_cooldown": (None, 5.468e-5, 1.0416e-7),
    "vit_large": (3.33e-5, 1.75e-4, None),
    "vit_large_cooldown": (None, 1.75e-4, 1e-6),
    "vit_large_dense": (3.33e-5, 1.75e-4, None),
    "vit_base_dense_cooldown": (None, 1.75e-4, 1e-6),
}


@pytest.mark.parametrize("name", RATES)
def test_recipes_train_at_the_published_rates(name: str) -> None:
    from echojepa.launch.pretrain import PretrainJob

    job = load(ROOT / f"configs/pretrain/{name}.yaml", SITE["pretrain"], PretrainJob)
    lr = at_batch(job.optimizer, job.loop.global_batch).lr
    for found, published in zip((lr.start, lr.peak, lr.final), RATES[name], strict=True):
        assert found == (None if published is None else pytest.approx(published, rel=2e-3))


SHRUNKEN = (
    "model.encoder.width=24",
    "model.encoder.depth=4",
    "model.encoder.num_heads=2",
    "model.predictor.width=16",
    "model.predictor.depth=1",
    "model.predictor.num_heads=2",
    "optimizer.precision=float32",
    "optimizer.max_micro_batch=2",
    "loop.global_batch=2",
    "loop.stop_after_step=1",
    "loop.probe_every_steps=null",
    "data.where.split=null",
)
SHRUNKEN_OF_FILE = {"vit_small_sigreg": ["objective.regulariser.group=2"]}


@pytest.mark.integration
@shipped("pretrain")
@pytest.mark.usefixtures("teacher")
def test_every_recipe_trains_one_step_on_a_shrunken_model(
    path: Path, phantom_manifest: Path, tmp_path: Path
) -> None:
    from echojepa.launch.pretrain import PretrainJob
    from echojepa.pretrain import PretrainConfig

    here = [f"run_dir={tmp_path / 'run'}", f"data.manifest={phantom_manifest}"]
    own = [*site(path), *SHRUNKEN_OF_FILE.get(path.stem, [])]
    job = load(path, [*own, *here, *SHRUNKEN], PretrainJob)
    tree = {name: value for name, value in to_tree(job).items() if name != "cluster"}
    config = validate(tree, PretrainConfig, str(path))
    assert config.objective == load(path, own, PretrainJob).objective
    (loss,) = pretrain_plain(tree)
    assert 0 < loss < 10


@shipped("evaluate")
def test_evaluations_have_tasks_of_different_names(path: Path) -> None:
    from echojepa.launch.evaluate import EvaluateJob

    names = [task.name for task in load(path, SITE["evaluate"], EvaluateJob).tasks]
    assert 0 < len(set(names)) == len(names)


@shipped("sweep")
def test_every_searched_setting_exists_and_takes_its_values(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from echojepa.launch.pretrain import PretrainJob
    from echojepa.launch.sweep import SweepJob

    monkeypatch.chdir(ROOT)  # `base` is relative to the working directory
    job = load(path, SITE["sweep"], SweepJob)
    base = load(job.base, [*SITE["pretrain"], *job.overrides], PretrainJob)
    for dimension in job.search:
        values = dimension.values or (dimension.low, dimension.high)
        for value in values:
            amend(base, [f"{dimension.key}={'null' if value is None else value}"])
    assert base.probe is not None
    assert base.loop.probe_every_steps is not None
    assert base.loop.probe_every_steps <= job.grace_steps < base.loop.num_steps
    assert job.metric.startswith(f"probe/{base.probe.task.name}_")


@shipped("benchmark")
def test_every_benchmark_can_be_planned(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All configs that it names fit together, and arms cost the same within a step."""
    from echojepa.launch.benchmark import plan
    from echojepa.launch.benchmark_arms import BenchmarkJob

    monkeypatch.chdir(ROOT)  # what it names is relative to the working directory
    job = load(path, [f"out={tmp_path / 'out'}"], BenchmarkJob)
    told = plan(job)
    reference = next(arm for arm in told.arms if arm.name == job.reference)
    for arm in told.arms:
        budget = job.pretrained[arm.name].share * reference.total("flops")
        assert arm.total("flops") == pytest.approx(budget, abs=arm.step.flops)
    assert told.hours is not None
    assert not (tmp_path / "out").exists()


def test_the_demo_probes_what_it_evaluates_and_ends_on_a_checkpoint() -> None:
    from echojepa.launch.evaluate import EvaluateJob
    from echojepa.launch.pretrain import PretrainJob

    job = load(ROOT / "configs/pretrain/demo.yaml", SITE["pretrain"], PretrainJob)
    judge = load(ROOT / "configs/evaluate/demo.yaml", SITE["evaluate"], EvaluateJob)
    assert job.probe is not None
    assert job.probe.task.label in {task.label for task in judge.tasks}
    assert job.loop.num_steps % job.loop.checkpoint_every_steps == 0


H100_FLOPS = 989e12
"""Dense bfloat16, as the data sheet says; 40% of it is good in practice."""
STREAM_BLOCKS_PER_SECOND = 500
"""More than one Ray Data pipeline schedules."""


@shipped("pretrain")
@pytest.mark.usefixtures("teacher")
def test_any_number_of_workers_trains_at_full_speed(path: Path) -> None:
    """On 1 to 64 GPUs: blocks cut well, no more padding than equal shares ask, long segments.

    Where clips must stay together, shares are whole groups.
    """
    from echojepa.launch.pretrain import PretrainJob
    from echojepa.pretrain import cut_batch

    config = load(path, site(path), PretrainJob)
    cost = flops_per_clip(config.build_objective(Seeds(0)).passes())
    for workers in range(1, 65):
        shape = cut_batch(config, workers)
        batch = shape.global_batch
        share = -(-batch // workers)
        computed = shape.micro_batch * shape.accumulation
        ungrouped = (config.objective.clips_together - 1) * shape.accumulation
        assert computed - share < 0.05 * share + ungrouped
        shipped = shape.blocks_per_micro * shape.block_rows
        assert shipped - shape.micro_batch < 0.05 * shape.micro_batch
        segment = segment_after(0, 10**9, shape)
        assert segment.stop >= 60
        seconds = batch * cost / (workers * 0.4 * H100_FLOPS)
        seconds = max(seconds, shape.blocks_per_step / STREAM_BLOCKS_PER_SECOND)
        later = segment_after(segment.stop, 10**9, shape, step_seconds=seconds)
        assert later.stop - later.start >= 60
        assert (later.stop - later.start) * seconds >= 120
