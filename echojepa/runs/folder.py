"""The folder of a run: what it is, how often it was started, and everything unusual that happened.

config.yaml       the resolved config       run.json         fingerprints and versions
attempts.jsonl    one line per start        events.jsonl     one line per unusual thing
metrics.jsonl     scalars per logged step   rejected.parquet clips that could not be read
patients.parquet  keyed digests of those whose clips are used
interventions.jsonl   rollbacks, and the samples from which on another seed holds
samples/          what was trained on       checkpoints/     see `checkpoint`
tensorboard/      scalars and images        encoder/         the exported encoder
reconstruction.png  what the network redraws, if it learns from pixels
"""

from __future__ import annotations

import json
import platform
import subprocess
import time
import uuid
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from echojepa.config import Strict, binding_differences, fingerprint, to_tree, to_yaml
from echojepa.data.problem import ClipProblem
from echojepa.durable import append_line, make_folder, write_bytes, write_text
from echojepa.errors import ConfigError, ManifestError, StorageError

_PACKAGES = ("echojepa", "torch", "deepspeed", "ray", "numpy", "pyarrow", "av", "timm")

_RECONSTRUCTION = "reconstruction.png"


class RunFolder:
    """Paths and small files of a run. Created by the launcher, used by rank 0 afterwards."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"
        self.encoder = self.path / "encoder"

    def create(self, config: Strict, manifest_fingerprint: str) -> None:
        """Make the folder, or check that it belongs to this very run.

        Raises:
            StorageError: it cannot be written, or holds something that is not a run.
            ConfigError: it holds a run with another model, data, schedule or batch.
            ManifestError: its manifest has changed.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StorageError(
                f"the run folder cannot be written: {error.strerror}",
                "Choose another run_dir or fix its permissions.",
                str(self.path),
            ) from None
        is_run = (self.path / "run.json").is_file()
        if is_run and any(self.checkpoints.glob("step_*")):
            self._check_same(config, manifest_fingerprint)
        elif not is_run and any(self.path.iterdir()):
            raise StorageError(
                "the folder is not empty and holds no run",
                "Choose another run_dir.",
                str(self.path),
            )
        else:  # a run without a checkpoint has nothing yet that other settings would contradict
            known = self.identity()["run_id"] if is_run else uuid.uuid4().hex
            identity = {"run_id": known, **provenance(config, manifest_fingerprint)}
            write_text(self.path / "run.json", json.dumps(identity, indent=1))
        write_text(self.path / "config.yaml", to_yaml(config))
        for folder in (self.checkpoints, self.samples):
            make_folder(folder)

    def identity(self) -> dict[str, Any]:
        """`run.json`.

        Raises:
            StorageError: this is no run folder.
        """
        try:
            identity: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        except (OSError, ValueError):
            raise StorageError(
                "no run.json: not a run folder", "Name the run_dir of a run.", str(self.path)
            ) from None
        return identity

    def config_tree(self) -> dict[str, Any]:
        """The resolved config of the latest start, as a plain tree."""
        tree: dict[str, Any] = yaml.safe_load((self.path / "config.yaml").read_text())
        return tree

    def begin_attempt(self, start_step: int, **described: Any) -> int:
        """Record a start of the training group, with what describes it; returns its number."""
        number = len(self.attempts())
        line = {"attempt": number, "start_step": start_step, **described}
        append_line(self.path / "attempts.jsonl", _stamped(line))
        return number

    def attempts(self) -> list[dict[str, Any]]:
        """All recorded starts."""
        return read_lines(self.path / "attempts.jsonl")

    def event(self, kind: str, step: int, **details: Any) -> None:
        """Record something unusual."""
        self._append("events.jsonl", {"kind": kind, "step": step, **details})

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All recorded events, or those of one kind."""
        found = read_lines(self.path / "events.jsonl")
        return [e for e in found if kind is None or e["kind"] == kind]

    def intervene(self, step: int, first_sample: int, reason: str) -> None:
        """Record that the run went back to `step`, and that samples differ from `first_sample`."""
        line = {"step": step, "first_sample": first_sample, "reason": reason}
        append_line(self.path / "interventions.jsonl", _stamped(line))

    def interventions(self) -> list[dict[str, Any]]:
        """All rollbacks."""
        return read_lines(self.path / "interventions.jsonl")

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Record the scalars of a step."""
        self._append("metrics.jsonl", {"step": step, **values})

    def logged(self) -> list[dict[str, Any]]:
        """Recorded scalars in the order of their steps; of steps done again, the last ones."""
        last = {line["step"]: line for line in read_lines(self.path / "metrics.jsonl")}
        return [last[step] for step in sorted(last)]

    def keep_reconstruction(self, png: bytes) -> None:
        """Keep a picture of what the network redraws, in place of the last one."""
        write_bytes(self.path / _RECONSTRUCTION, png)

    def reconstruction(self) -> bytes | None:
        """That picture as PNG, if there is one."""
        file = self.path / _RECONSTRUCTION
        return file.read_bytes() if file.is_file() else None

    def reject(self, problems: Iterable[ClipProblem]) -> None:
        """Add unreadable clips to `rejected.parquet`."""
        file = self.path / "rejected.parquet"
        rows = pq.read_table(file).to_pylist() if file.is_file() else []
        known = {row["clip_id"] for row in rows}
        added = []
        for clip_id, problem in problems:
            if clip_id not in known:
                known.add(clip_id)
                added.append(
                    {
                        "clip_id": clip_id,
                        "stage": problem.stage,
                        "type": problem.kind,
                        "message": problem.message,
                    }
                )
        if added:
            partial = file.with_suffix(".partial")
            pq.write_table(pa.Table.from_pylist(rows + added), partial)
            partial.replace(file)

    def check_manifest(self, fingerprint: str) -> None:
        """Raise `ManifestError` if this is not the manifest the run began with."""
        if self.identity()["manifest_fingerprint"] != fingerprint:
            raise ManifestError(
                "the manifest has changed since this run began",
                "Bring the old one back, or continue this run in a new one with fork_from.",
                str(self.path),
            )

    def _check_same(self, config: Strict, manifest_fingerprint: str) -> None:
        self.check_manifest(manifest_fingerprint)
        changed = binding_differences(self.identity()["config"], config)
        if changed:
            raise ConfigError(
                f"this run was begun with other values of {', '.join(changed)}",
                "Give it the old ones, or continue this run in a new one with fork_from.",
                str(self.path),
            )

    def _append(self, name: str, line: dict[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(_stamped(line) + "\n")


def provenance(config: Strict, manifest_fingerprint: str) -> dict[str, Any]:
    """What a run and each of its checkpoints say of their origin."""
    return {
        "config": to_tree(config),
        "config_hash": fingerprint(config),
        "manifest_fingerprint": manifest_fingerprint,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "versions": installed_versions(),
    }


def installed_versions() -> dict[str, str]:
    """Of the packages that a run depends on."""
    return {name: metadata.version(name) for name in _PACKAGES}


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All complete lines of a JSON-lines file; none if it does not exist."""
    text = file.read_text() if file.is_file() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _git_commit() -> str | None:
    """Commit of the source tree this package runs from, or None if it is installed elsewhere."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def _stamped(line: dict[str, Any]) -> str:
    return json.dumps({"time": round(time.time(), 3), **line})
