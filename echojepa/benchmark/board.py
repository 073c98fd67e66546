"""Arms over seeds: means, 95% intervals over patients, spread over seeds, paired differences.

An interval says how far the mean over these seeds would move with other test patients; how far it
would move with other seeds, the spread says. A difference counts as *clear* if its interval holds
no zero and every seed agrees on its sign, of two seeds at least and of ten patients: intervals from
fewer are too short. Nothing is corrected for the number of comparisons.

Shapes: R draws of patients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from echojepa.benchmark.measures import Drawn, Measure, Measured
from echojepa.probes.fitting import BASELINE
from echojepa.probes.intervals import Interval, intervals

BySeed = Mapping[int, Measured]
Encoders = Mapping[str, tuple[str, int]]
"""Arm and seed, by the name that an evaluation knows an encoder by."""
FEWEST_SEEDS, FEWEST_PATIENTS = 2, 10
"""Below, no difference is clear."""
ANY_SEED = 0
"""Of the baseline, which has no weights to draw."""


class Score(NamedTuple):
    """A measure, or a difference of it, averaged over seeds."""

    value: float
    interval: Interval
    """Over patients, of that mean."""
    by_seed: dict[int, float]
    num_patients: int

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None of one seed."""
        return float(np.std(list(self.by_seed.values()), ddof=1)) if len(self.by_seed) > 1 else None

    @property
    def is_clear(self) -> bool:
        """Whether a difference is one."""
        signs = {np.sign(value) for value in self.by_seed.values()}
        enough = len(self.by_seed) >= FEWEST_SEEDS and self.num_patients >= FEWEST_PATIENTS
        return enough and self.interval.excludes_zero and len(signs) == 1


def over_seeds(drawn: Mapping[int, Drawn]) -> Score:
    """The mean over seeds; at least one."""
    draws = np.mean([one.draws for one in drawn.values()], axis=0)
    by_seed = {seed: one.value for seed, one in drawn.items()}
    mean = float(np.mean(list(by_seed.values())))
    num_patients = min(one.num_patients for one in drawn.values())
    return Score(mean, intervals({"mean": draws})["mean"], by_seed, num_patients)


@dataclass(frozen=True)
class Board:
    """What all arms are worth."""

    arms: Mapping[str, BySeed]
    """What is known of every arm and seed, the baseline among them."""

    @property
    def measures(self) -> list[Measure]:
        """All that some arm has, task by task."""
        every = (m for seeds in self.arms.values() for known in seeds.values() for m in known)
        return list(dict.fromkeys(every))

    def score(self, arm: str, measure: Measure) -> Score | None:
        """Over the seeds that have it; None if none does."""
        found = self._drawn(arm, measure)
        return over_seeds(found) if found else None

    def difference(self, arm: str, minus: str, measure: Measure) -> Score | None:
        """Paired by patients, and by seeds where both have several; None without a common seed."""
        one, other = self._drawn(arm, measure), self._drawn(minus, measure)
        if arm == BASELINE and one:
            one = dict.fromkeys(other, one[ANY_SEED])
        if minus == BASELINE and other:
            other = dict.fromkeys(one, other[ANY_SEED])
        paired = {seed: one[seed].minus(other[seed]) for seed in one if seed in other}
        return over_seeds(paired) if paired else None

    def clear_winner(self, measure: Measure) -> str | None:
        """The arm that is clearly better than every other one that has this measure."""
        scores = {arm: self.score(arm, measure) for arm in self.arms}
        found = {arm: score.value for arm, score in scores.items() if score is not None}
        if len(found) < 2 or not np.isfinite(list(found.values())).all():
            return None
        sign = 1 if measure.lower_is_better else -1
        best = min(found, key=lambda arm: sign * found[arm])
        others = [arm for arm in found if arm != best]
        apart = [self.difference(best, other, measure) for other in others]
        return best if all(d is not None and d.is_clear for d in apart) else None

    def _drawn(self, arm: str, measure: Measure) -> dict[int, Drawn]:
        known = self.arms.get(arm, {})
        return {seed: found[measure] for seed, found in known.items() if measure in found}


def board_of(by_encoder: Mapping[str, Measured], encoders: Encoders) -> Board:
    """Sort what was measured by arm and seed."""
    arms: dict[str, dict[int, Measured]] = {arm: {} for arm, _ in encoders.values()}
    for name, (arm, seed) in encoders.items():
        if name in by_encoder:
            arms[arm][seed] = by_encoder[name]
    if BASELINE in by_encoder:
        arms[BASELINE] = {ANY_SEED: by_encoder[BASELINE]}
    return Board(arms)


def lines_of(board: Board, opponents: Sequence[str]) -> Iterable[dict[str, object]]:
    """All scores and differences, a line each: single seeds without an interval, then means."""
    for arm in board.arms:
        for measure in board.measures:
            score = board.score(arm, measure)
            if score is None:
                continue
            yield from _lines(arm, measure, None, score)
            for minus in (name for name in opponents if name != arm):
                apart = board.difference(arm, minus, measure)
                if apart is not None:
                    yield from _lines(arm, measure, minus, apart)


def _lines(
    arm: str, measure: Measure, minus: str | None, score: Score
) -> Iterable[dict[str, object]]:
    whole = {"arm": arm, "minus": minus, **measure._asdict(), "num_patients": score.num_patients}
    low, high = score.interval
    for seed, value in score.by_seed.items():
        yield {**whole, "seed": seed, "value": value, "low": None, "high": None}
    yield {**whole, "seed": None, "value": score.value, "low": low, "high": high}
