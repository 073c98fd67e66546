"""Did all arms see the same clips in the same order? From what their workers recorded.

The audit proves that a run received what its own seed demands; here the runs are compared with each
other, sample by sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from echojepa.config import validate
from echojepa.data.block import DataConfig
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder
from echojepa.runs.rollback import seeds_of
from echojepa.train.record import from_ranges, read_record


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
    audit_run(folder).raise_if_unclean(str(run))
    samples: dict[int, list[int]] = {}
    for attempt in folder.attempts():
        start = attempt["start_step"]
        samples = {step: known for step, known in samples.items() if step < start}
        for lines in read_record(folder.samples, attempt["attempt"]):
            for line in lines:
                received = from_ranges(line["samples"]).tolist()
                samples.setdefault(line["step"], []).extend(received)
    tree = folder.config_tree()
    clips = validate(tree["data"], DataConfig, str(run)).clips()
    # Ranks share a step's samples; their order within it is that of their indices.
    order = np.array([s for step in sorted(samples) for s in sorted(samples[step])], np.int64)
    return clips.clip_ids(clips.rows_of(order, seeds_of(folder, tree["seed"])))


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
