"""How sure a score is: 95% intervals by resampling patients.

Clips of one patient are not independent, so whole patients are drawn with replacement (the cluster
bootstrap; Field and Welsh, J. R. Stat. Soc. B 69:369, 2007) and the scores are computed again from
all clips of those drawn. The same draws serve all sets of features, so that differences are paired.

Shapes: n clips, R draws.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echojepa.probes.metrics import Floats, Scores

NUM_DRAWS = 1000
_PERCENTILES = (2.5, 97.5)


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference with this interval is one."""
        return self.low > 0 or self.high < 0


def patient_draws(patients: NDArray[Any], seed: int = 0) -> Floats:
    """How often every clip counts in every draw of as many patients as there are, [R, n].

    Args:
        patients: of every clip, [n].
    """
    _, owner = np.unique(patients, return_inverse=True)
    num_patients = int(owner.max()) + 1
    rng = np.random.default_rng(seed)
    times = rng.multinomial(num_patients, np.full(num_patients, 1 / num_patients), NUM_DRAWS)
    return np.asarray(times[:, owner], np.float64)


def intervals(drawn: Scores) -> dict[str, Interval]:
    """The interval of every score, [R] each; draws in which it is not defined don't count."""
    found = {}
    for name, values in drawn.items():
        known = values[~np.isnan(values)]
        low, high = np.percentile(known, _PERCENTILES) if len(known) else (np.nan, np.nan)
        found[name] = Interval(float(low), float(high))
    return found


def differences(one: Scores, other: Scores) -> dict[str, Interval]:
    """The intervals of `one` minus `other`, both of the same draws."""
    return intervals({name: one[name] - other[name] for name in one})
