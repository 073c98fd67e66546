"""What a probe is shown at once: a clip, or a study with a clip in each of some slots.

Shapes: n examples, V slots (one, where clips are judged by themselves), W windows of a clip, K
tokens of a window, D their width, P pooled features of a window.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from echojepa.errors import BadDataError
from echojepa.probes.grid.samples import Batch
from echojepa.probes.metrics import Floats
from echojepa.probes.store import Features
from echojepa.probes.tasks import Labels, Task, labels_of, pick

ABSENT = ""
"""In place of the id of a clip that a study lacks."""


@dataclass(frozen=True)
class Arranged:
    """Clips, as examples show them."""

    first: NDArray[np.int64]
    """A row of the manifest that says whose each example is, [n]."""
    clips: NDArray[np.str_]
    """Clip ids, [n, V]; `ABSENT` where a study has no readable clip of this kind."""
    slots: tuple[str, ...]
    """Names of the V slots."""


@dataclass(frozen=True)
class Examples(Arranged):
    """Examples of a task, and what is known of them."""

    labels: Labels
    """One row each; a study with slots is a row, too."""


def examples_of(
    rows: pa.Table, task: Task, readable: Set[str], groups: Sequence[str] = ()
) -> Examples:
    """The examples that labelled rows of a manifest make; see `arranged`.

    Args:
        rows: of one task; see `tasks.labelled_rows`.
        groups: see `tasks.labels_of`.
    """
    found = arranged(rows, task, readable)
    labels = labels_of(rows.take(pa.array(found.first)), task, groups)
    return Examples(found.first, found.clips, found.slots, labels)


def arranged(rows: pa.Table, task: Task, readable: Set[str]) -> Arranged:
    """Which clips make an example, of those that can be read.

    A study with several clips for a slot takes the one that a hash of the ids picks; one without a
    clip in any slot is no example.
    """
    clip_ids = _texts(rows["clip_id"])
    if not task.slots:
        kept = [i for i, clip_id in enumerate(clip_ids) if clip_id in readable]
        clips = np.array([clip_ids[i] for i in kept], str).reshape(-1, 1)
        return Arranged(np.array(kept, np.int64), clips, ("",))
    names = tuple(slot.name for slot in task.slots)
    of_slot = [_by_study(rows.filter(slot.expression()), readable) for slot in task.slots]
    studies = sorted(set().union(*of_slot))
    chosen = [
        [pick(found[study], 1, seed=0)[0] if study in found else ABSENT for found in of_slot]
        for study in studies
    ]
    first = {study: i for i, study in reversed(list(enumerate(_texts(rows["study_id"]))))}
    lines = np.array([first[study] for study in studies], np.int64)
    return Arranged(lines, np.array(chosen, str).reshape(-1, len(names)), names)


def _by_study(rows: pa.Table, readable: Set[str]) -> dict[str, list[str]]:
    """Readable clips of every study that has some."""
    found: dict[str, list[str]] = {}
    pairs = zip(_texts(rows["study_id"]), _texts(rows["clip_id"]), strict=True)
    for study, clip_id in pairs:
        if clip_id in readable:
            found.setdefault(study, []).append(clip_id)
    return found


def _texts(column: pa.ChunkedArray) -> list[str]:
    texts: list[str] = column.to_pylist()
    return texts


@dataclass(frozen=True)
class Material:
    """Examples as one encoder sees them: what probes are fitted on."""

    examples: Arranged
    features: Features

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Of the features, for every slot of every example, [n, V]; -1 where it is absent."""
        flat = self.examples.clips.ravel().tolist()
        return self.features.rows_for(flat).reshape(self.examples.clips.shape)

    @cached_property
    def vectors(self) -> Floats:
        """Pooled features of the slots side by side, [n, V P]; NaN where one is absent.

        Raises:
            BadDataError: an encoder has given what is not finite, which is not the same as absent.
        """
        rows = self.rows.ravel()
        found = self.features.vectors(rows)
        bad = (rows >= 0) & ~np.isfinite(found).all(axis=1)
        if bad.any():
            raise BadDataError(
                f"the features of {bad.sum()} clip(s) are not finite, those of "
                f"{str(self.examples.clips.ravel()[bad][0])!r} for one",
                "Leave the encoder out, or run it in precision float32.",
            )
        found[rows < 0] = np.nan
        return found.reshape(len(self.rows), self.rows.shape[1] * found.shape[1])

    # As `grid.samples.Samples`: tokens for heads that look at them.

    @property
    def num_samples(self) -> int:
        """n."""
        return len(self.rows)

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the slots."""
        return self.examples.slots

    @property
    def clips(self) -> int:
        """W."""
        return int(self.features.pooled.shape[1])

    @property
    def tokens(self) -> int:
        """K; a window of which no tokens are kept is one."""
        return self.features.tokens.shape.tokens if self.features.tokens else 1

    @property
    def width(self) -> int:
        """D, or P where no tokens are kept."""
        kept = self.features.tokens
        return kept.shape.width if kept else int(self.features.pooled.shape[2])

    def batch(self, index: NDArray[np.int64]) -> Batch:
        """Tokens of some examples, and which of their slots are present."""
        rows = self.rows[index]
        here = rows >= 0
        kept = self.features.tokens
        values = torch.zeros(*rows.shape, self.clips, self.tokens, self.width)
        if kept is not None:
            values[torch.from_numpy(here)] = kept(rows[here])
        else:
            pooled = torch.from_numpy(self.features.pooled[rows[here]])
            values[torch.from_numpy(here)] = pooled[:, :, None]
        present = torch.from_numpy(here)[..., None].expand(*rows.shape, self.clips)
        return Batch(values.flatten(1, 2), present.flatten(1, 2))
