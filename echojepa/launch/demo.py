"""The whole story on one machine, through the very parts a cluster uses.

Phantom studies as real video files, then pretraining (Ray Data, two Ray Train workers, ZeRO-3), an
audit of what was trained on, frozen probes beside chance and random weights, and a report.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from echojepa.config import load
from echojepa.errors import ConfigError
from echojepa.launch import evaluate, phantom, pretrain
from echojepa.launch.evaluate import EvaluateJob
from echojepa.launch.pretrain import PretrainJob
from echojepa.on_ray.connect import connected
from echojepa.phantom import PhantomConfig
from echojepa.probes.fitting import ProbeResult
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder


@dataclass(frozen=True)
class DemoResult:
    """Where things are."""

    report: Path
    tensorboard: Path
    encoder: Path
    results: list[ProbeResult]
    seconds: float


def launch(out: Path, overrides: list[str] | None = None) -> DemoResult:
    """Run the demo into `out`; a second call resumes an interrupted one.

    Args:
        overrides: settings of one of its three configs, for shorter or longer demos:
            `phantom.num_studies=12`, `pretrain.loop.num_steps=8`, `evaluate.batch=4`.

    Raises:
        UserError: the folder cannot be written, or the settings are wrong.
    """
    began = time.monotonic()
    console = Console(stderr=True)
    out = out.resolve()
    hearts, job, judge = _configs(out, overrides or [])
    run_dir = Path(job.run_dir)

    with connected(job.cluster):
        console.rule("1  phantom hearts, filmed")
        phantom.launch(hearts, out / "phantom", job.cluster)
        console.rule("2  pretraining: Ray Data, Ray Train, ZeRO-3")
        pretrain.launch(job)
        report = audit_run(RunFolder(run_dir))
        report.raise_if_unclean(str(run_dir))
        console.print(f"audit: {report.num_samples} samples, each exactly once")
        console.rule("3  what is the frozen encoder worth?")
        results = evaluate.launch(judge)
    return DemoResult(
        report=out / "report.html",
        tensorboard=run_dir / "tensorboard",
        encoder=run_dir / "encoder",
        results=results,
        seconds=time.monotonic() - began,
    )


def _configs(out: Path, overrides: list[str]) -> tuple[PhantomConfig, PretrainJob, EvaluateJob]:
    """The demo's three configs, with everything they read and write inside `out`."""
    configs = config_folder()
    own = _by_config(overrides)
    manifest, run_dir = f"{out}/phantom/manifest.parquet", f"{out}/run"
    paths = [f"run_dir={run_dir}", f"data.manifest={manifest}"]
    tested = [
        f"run_dir={run_dir}",
        f"encoders.pretrained.path={run_dir}/encoder",
        f"manifest={manifest}",
    ]
    return (
        load(configs / "data" / "demo.yaml", own["phantom"], PhantomConfig),
        load(configs / "pretrain" / "demo.yaml", [*paths, *own["pretrain"]], PretrainJob),
        load(
            configs / "evaluate" / "demo.yaml",
            [*tested, f"out={out}", *own["evaluate"]],
            EvaluateJob,
        ),
    )


def _by_config(overrides: list[str]) -> dict[str, list[str]]:
    """Overrides by the config they belong to, which their first word names."""
    parts: dict[str, list[str]] = {"phantom": [], "pretrain": [], "evaluate": []}
    for override in overrides:
        name, _, setting = override.partition(".")
        if name not in parts:
            raise ConfigError(
                f"override {override!r} belongs to none of the demo's configs",
                f"Begin it with one of: {', '.join(f'{name}.' for name in parts)}",
                "command line",
            )
        parts[name].append(setting)
    return parts


def config_folder() -> Path:
    """`configs/` of the clone this package is installed from.

    Raises:
        ConfigError: the package was installed without its repository.
    """
    folder = Path(__file__).resolve().parents[2] / "configs"
    if not folder.is_dir():
        raise ConfigError(
            "the repository's configs/ folder is not beside the package",
            "Install from a clone with `pip install -e .`.",
            str(folder),
        )
    return folder
