"""The run folder's checkpoints: complete, self-verifying, visible all at once or not at all.

    checkpoints/step_00000200/
        shard_00000_of_00002.safetensors  weights, moments, EMA (see `shards`)
        state.json                        step, data cursor, counters, config, fingerprints
        checksums.json                    SHA-256 and size of the others, and of itself

A checkpoint is written into a hidden folder and renamed when every byte is on disk. `newest_valid`
is the one function that decides what a run goes on from; its choice is broadcast and recorded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from echojepa.durable import flush
from echojepa.errors import CheckpointError, StorageError
from echojepa.runs.shards import write_shards
from echojepa.train import collectives
from echojepa.train.engine import Shards

CHECKSUMS = "checksums.json"
"""The last file of a checkpoint to be written, here and on any other storage."""
_STATE = "state.json"


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay."""

    keep_last: int
    keep_every_steps: int | None
    healthy_until: tuple[int, ...]
    """The newest checkpoint up to each of these steps stays: a run that collapses goes back."""

    def too_old(self, names: list[str]) -> list[str]:
        """The names of checkpoints, oldest first, that may go."""
        steps = [step_of(Path(name)) for name in names]
        healthy = {max((s for s in steps if s <= end), default=None) for end in self.healthy_until}
        every = self.keep_every_steps
        return [
            name
            for name, step in list(zip(names, steps, strict=True))[: -self.keep_last]
            if step not in healthy and (every is None or step % every)
        ]


def save(
    root: Path, step: int, shards: Shards, state: dict[str, Any], retention: Retention
) -> Path:
    """Write a checkpoint; every rank calls this with its own shards. Returns its folder.

    Args:
        step: the next optimiser step, which is also the data cursor over the global batch.
        state: plain JSON; rank 0's is written.

    Raises:
        StorageError: the folder cannot be written, on any rank.
    """
    rank, world_size = collectives.world()
    final = folder_of(root, step)
    partial = root / f".{final.name}.partial"
    failure = None
    if rank == 0:
        failure = _failure_of(lambda: _start_over(partial))
    _raise_together(failure, root)
    sums: dict[str, dict[str, Any]] = {}

    def write() -> None:
        file = write_shards(partial, shards, rank, world_size)
        flush(file)
        sums[file.name] = _checksum(file)

    _raise_together(_failure_of(write), root)
    gathered = collectives.gather(sums)
    if rank == 0:
        merged = {name: value for part in gathered for name, value in part.items()}
        failure = _failure_of(lambda: _publish(partial, final, state, merged))
    _raise_together(failure if rank == 0 else None, root)
    if rank == 0:
        _retain(root, step, retention)
    return final


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint before step `step` lives."""
    return root / f"step_{step:08d}"


def step_of(folder: Path) -> int:
    """The inverse of `folder_of`."""
    return int(folder.name.removeprefix("step_"))


def newest_valid(root: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that proves itself, and why newer ones were passed over."""
    rejected: list[str] = []
    for folder in sorted(root.glob("step_*"), reverse=True):
        reason = find_damage(folder)
        if reason is None:
            return folder, rejected
        rejected.append(f"{folder.name}: {reason}")
    return None, rejected


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None; reads every byte."""
    try:
        recorded = json.loads((folder / CHECKSUMS).read_text())
        files = recorded["files"]
        if recorded["self"] != _digest_of(files):
            return f"{CHECKSUMS} does not match itself"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{CHECKSUMS} cannot be read ({type(error).__name__})"
    for name, wanted in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != wanted["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, not {wanted['bytes']}"
    with ThreadPoolExecutor(4) as pool:
        for name, found in zip(
            files, pool.map(_checksum, [folder / n for n in files]), strict=True
        ):
            if found != files[name]:
                return f"{name} has another checksum"
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint.

    Raises:
        CheckpointError: it is missing or not JSON.
    """
    try:
        state: dict[str, Any] = json.loads((folder / _STATE).read_text())
    except (OSError, ValueError):
        raise CheckpointError(
            f"{_STATE} cannot be read", "Name a checkpoint folder.", str(folder)
        ) from None
    return state


def resolve(path: Path) -> Path:
    """A checkpoint named directly, or the newest valid one of a run folder.

    Raises:
        CheckpointError: there is none, or the named one is damaged.
    """
    if (path / CHECKSUMS).is_file() or path.name.startswith("step_"):
        reason = find_damage(path)
        if reason:
            raise CheckpointError(f"the checkpoint is damaged: {reason}", "Use another.", str(path))
        return path
    found, rejected = newest_valid(path / "checkpoints")
    if found is None:
        detail = f" ({'; '.join(rejected)})" if rejected else ""
        raise CheckpointError(
            f"no valid checkpoint{detail}", "Name a run folder or a checkpoint.", str(path)
        )
    return found


def _publish(partial: Path, final: Path, state: dict[str, Any], sums: dict[str, Any]) -> None:
    """Rank 0: complete the hidden folder and rename it."""
    (partial / _STATE).write_text(json.dumps(state, indent=1))
    flush(partial / _STATE)
    sums = {**sums, _STATE: _checksum(partial / _STATE)}
    content = {"files": sums, "self": _digest_of(sums)}
    (partial / CHECKSUMS).write_text(json.dumps(content, indent=1))
    flush(partial / CHECKSUMS)
    flush(partial)
    if final.exists():  # damaged, or of an abandoned history: this run has reached the step again
        shutil.rmtree(final)
    partial.rename(final)
    flush(final.parent)


def _retain(root: Path, step: int, retention: Retention) -> None:
    """Delete old checkpoints; damaged ones of later steps stay: the run reaches them again."""
    folders = [f for f in sorted(root.glob("step_*")) if f <= folder_of(root, step)]
    for name in retention.too_old([f.name for f in folders]):
        hidden = (root / name).rename(root / f".{name}.old")  # out of sight at once
        shutil.rmtree(hidden, ignore_errors=True)  # network disks keep files a reader holds


def _start_over(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _failure_of(action: Any) -> str | None:
    """Run an action on storage; returns why it failed, if it did."""
    try:
        action()
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror or error}"
    except SafetensorError as error:  # what it makes of a full disk
        return str(error)
    return None


def _raise_together(failure: str | None, root: Path) -> None:
    """Fail on every rank if it failed on one, so that none waits for the others."""
    failures = [f"rank {r}: {f}" for r, f in enumerate(collectives.gather(failure)) if f]
    if failures:
        raise StorageError(
            f"the checkpoint cannot be written: {failures[0]}",
            "Free space or fix the permissions, then run the same command again.",
            str(root),
        )


def _checksum(file: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return {"sha256": digest.hexdigest(), "bytes": file.stat().st_size}


def _digest_of(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
