"""Did all arms see the same clips in the same order?

The audit proves from what the workers recorded that a run received what its own seed demands. What
that is in each of several runs is compared here, sample by sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from echojepa.runs.audit import audit_run, expected_of
from echojepa.runs.folder import RunFolder


class SameOrder(NamedTuple):
    """What the records of several runs show."""

    num_samples: int
    """So many were compared: all of the shortest run."""
    differing: dict[str, int]
    """Of every run that differs from the first, the first sample that is another clip."""

    def __str__(self) -> str:
        if not self.differing:
            return f"the same {self.num_samples} clips in the same order"
        where = ", ".join(f"{name} from sample {s} on" for name, s in self.differing.items())
        return f"other clips, or another order: {where}"


def clips_seen(run: Path) -> list[str]:
    """Ids of the clips that a run was trained on, in the order of its samples.

    Raises:
        AuditError: its record shows a lost or doubled sample.
        StorageError: not a run folder, or a run that never started.
        ManifestError: the manifest is no longer the one of the run.
    """
    folder = RunFolder(run)
    report = audit_run(folder)
    report.raise_if_unclean(str(run))
    # A clean record is, from step 0 on, exactly what is expected.
    expected = expected_of(folder)
    steps = [expected.samples(step) for step in range(report.num_steps)]
    samples = np.concatenate([*steps, np.empty(0, np.int64)])
    return expected.clips.clip_ids(expected.clips.rows_of(samples, expected.seeds))


def same_order(seen: Mapping[str, list[str]]) -> SameOrder:
    """Compare what runs have seen.

    Args:
        seen: `clips_seen` by run; at least one.
    """
    first, *others = seen
    number = min(map(len, seen.values()))
    differing = {}
    for name in others:
        pairs = zip(seen[first], seen[name], strict=False)
        unequal = (s for s, (one, other) in enumerate(pairs) if one != other)
        found = next(unequal, None)
        if found is not None:
            differing[name] = found
    return SameOrder(number, differing)
