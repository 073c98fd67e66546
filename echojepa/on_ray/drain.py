"""No work is lost to a node that is taken away: the workers save before it goes.

A drained Ray node (`ray drain-node`, or the autoscaler) has a deadline. Ray Train tells all workers
of the group, waits until the deadline, and starts the group again without the node, on a budget of
its own beside `cluster.max_failures`. In between the group saves twice: as soon as it hears of it,
because nobody knows whether the cloud keeps its word, and once more shortly before the deadline.
If the node is rank 0's, it stands still from the first save on: Ray starts no actor on a drained
node, and Ray Data wants one beside rank 0 for every new segment of the stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from echojepa.on_ray.internals import (
    DEFAULT_PREEMPTION_DEADLINE_S,
    PreemptionInfo,
    notice_of_this_worker,
)

_LEAST_MARGIN_SECONDS = 10.0
_TAIL_SECONDS = 15.0
"""Ray Train needs a moment after the deadline; what is trained in it would be lost."""


class Drain:
    """Says when the group must save because one of its nodes will go, and when to stand still."""

    def __init__(
        self,
        notice: Callable[[], PreemptionInfo | None] = notice_of_this_worker,
        *,
        noted: Callable[[list[str], float], None],
    ) -> None:
        """`noted` hears once of the nodes (hex ids) and of the seconds that are left."""
        self._notice = notice
        self._noted = noted
        self._noticed_at: float | None = None
        self._deadline = float("inf")
        self._rank_0_goes = False
        self._save_seconds: float | None = None

    def save_due(self) -> bool:
        """Whether the group must save after this step."""
        info = self._notice()
        if info is None:
            return False
        now = time.time()
        noticed_at = now if self._noticed_at is None else self._noticed_at
        unstated = noticed_at + DEFAULT_PREEMPTION_DEADLINE_S
        told = unstated if info.deadline_ms is None else info.deadline_ms / 1000
        self._deadline = min(self._deadline, told)  # Ray Train, too, keeps the earliest
        self._rank_0_goes |= 0 in info.preempted_ranks
        if self._noticed_at is None:
            self._noticed_at = now
            self._noted(info.preempted_node_ids, self._deadline - now)
        return self._save_seconds is None or self._is_last(now)

    def saved(self) -> float:
        """Note that a save is done; returns for how many seconds to do nothing from here on."""
        if self._noticed_at is None:
            return 0.0
        now = time.time()
        if self._save_seconds is None:
            self._save_seconds = now - self._noticed_at
        return max(0.0, self._deadline - now) + _TAIL_SECONDS if self._is_last(now) else 0.0

    def _is_last(self, now: float) -> bool:
        """Whether there is no time for more steps: twice what a step and a save took is kept."""
        margin = max(_LEAST_MARGIN_SECONDS, 2 * (self._save_seconds or 0.0))
        return self._rank_0_goes or now >= self._deadline - margin
