"""Is the representation collapsing? Judged from the metrics of logged steps, nothing else.

A collapse is the commonest failure of joint-embedding training, and its loss looks fine: after a
slow healthy rise it suddenly *drops*, because features that say little are easy to predict. What
shows it is how spread out the features are. So every statistic of spread is compared with the best
that this very run has had, from its first logged step on, and the loss with its own recent past by
robust statistics. Medians over a few observations stand for the present: one odd batch is no alarm.

Where to go back to is judged against the recent past as well. Features that narrowed slowly and
were steady for long were healthy until they suddenly fell; those that crept to the floor were not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Literal, NamedTuple

from pydantic import Field

from echojepa.config import Strict

_MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for normal values."""
_LEAST_SIGMA = 0.02
"""Of the loss's median: the smallest deviation that counts as one sigma."""


class MonitorConfig(Strict):
    """What is alarming, and what follows."""

    on_alarm: Literal["roll_back", "stop"] = "roll_back"
    """Go back to the last healthy checkpoint, with other windows, crops and masks from there on and
    another order from the next epoch; or end the run."""
    max_rollbacks: int = Field(3, ge=0)
    """A run that needs more ends."""
    max_rollback_steps: int | None = Field(None, gt=0)
    """A run that would have to discard more steps ends, and says so; null are those of four
    checkpoints, or twice those of `window` and `patience` if they are more."""
    lr_factor: float = Field(1.0, gt=0, le=1)
    """The learning rate is multiplied by this at every rollback."""
    rank_floor: float = Field(0.25, gt=0, lt=1)
    """Alarming share of the best effective rank of the target's features. Half of it goes slowly
    in long healthy runs on few clips."""
    spread_floor: float = Field(0.25, gt=0, lt=1)
    """The same of the deviation of the target's features."""
    online_floor: float = Field(0.1, gt=0, lt=1)
    """The same of rank and deviation of the online encoder, whose features swing more."""
    loss_sigmas: float = Field(8.0, gt=0)
    """Alarming distance of the loss from its recent median, either way."""
    patience: int = Field(5, gt=0)
    """Logged steps whose median stands for the present."""
    window: int = Field(50, gt=1)
    """Logged steps before them that are the recent past. Before a run has logged so many there is
    no alarm: features spread and gather while training begins."""


class Alarm(NamedTuple):
    """Something that must not go on."""

    reason: str
    healthy_until: int
    """The last step that may be gone back to."""


class _Fall(NamedTuple):
    """How far a statistic of spread has fallen; 0 is not at all, 1 is to the floor."""

    danger: float
    """From its best value."""
    reason: str
    sudden: float
    """From its recent past."""


class Monitor:
    """Watches one run; see the module."""

    def __init__(self, config: MonitorConfig, watched: Iterable[str] = ("", "online_")) -> None:
        """`watched` are the prefixes of the metrics; "" are those of the exported encoder. Without
        any, the loss alone is watched."""
        self._config = config
        self._floors: dict[str, float] = {}
        for prefix in watched:
            exported = prefix == ""
            self._floors[f"{prefix}effective_rank"] = (
                config.rank_floor if exported else config.online_floor
            )
            self._floors[f"{prefix}feature_std"] = (
                config.spread_floor if exported else config.online_floor
            )
        self._recent = {name: deque[float](maxlen=config.patience) for name in self._floors}
        self._past = {name: deque[float](maxlen=config.window) for name in self._floors}
        self._best = dict.fromkeys(self._floors, 0.0)
        self._losses = deque[float](maxlen=config.window + config.patience)
        self._steps = deque[int](maxlen=config.patience)
        self._num_seen = 0
        self.healthy_until = 0
        """Last step that was followed by `patience` logged steps not even half-way to an alarm."""
        self.steady_until = 0
        """The same, but spread was compared with the recent past, and had not reached a floor."""

    def observe(self, step: int, metrics: Mapping[str, float]) -> Alarm | None:
        """Take in a logged step; returns what is alarming, if anything is.

        A step that is not finite says nothing: it was dropped, and is an event of its own.
        """
        if not all(math.isfinite(metrics[name]) for name in ("loss", *self._floors)):
            return None
        falls = [self._of_spread(name, metrics[name]) for name in self._floors]
        jump = self._of_loss(metrics["loss"])
        danger, reason = max([*((fall.danger, fall.reason) for fall in falls), jump])
        sudden = max([*(fall.sudden for fall in falls), jump[0]])
        self._steps.append(step)
        self._num_seen += 1
        if len(self._steps) == self._config.patience:
            if danger < 0.5:
                self.healthy_until = self._steps[0]
            if danger < 1 and sudden < 0.5:
                self.steady_until = self._steps[0]
        if danger <= 1 or self._num_seen <= self._config.window:
            return None
        return Alarm(reason, self.steady_until if sudden >= 0.5 else self.healthy_until)

    def _of_spread(self, name: str, value: float) -> _Fall:
        recent, past = self._recent[name], self._past[name]
        recent.append(value)
        now = median(recent)
        best = self._best[name] = max(self._best[name], now)
        usual = median(past) if past else now
        past.append(now)
        if len(recent) < self._config.patience:
            return _Fall(0.0, "", 0.0)
        margin = 1 - self._floors[name]
        return _Fall(
            danger=(1 - now / max(best, 1e-12)) / margin,
            reason=f"{name} has fallen from {best:.3g} to {now:.3g}",
            sudden=(1 - now / max(usual, 1e-12)) / margin,
        )

    def _of_loss(self, value: float) -> tuple[float, str]:
        self._losses.append(value)
        if len(self._losses) < self._config.window + self._config.patience:
            return 0.0, ""
        losses = list(self._losses)
        # The last `patience` losses are the present, the `window` before them the past.
        past, now = losses[: self._config.window], median(losses[self._config.window :])
        usual = median(past)
        sigma = _MAD_TO_SIGMA * median(abs(x - usual) for x in past)
        sigmas = abs(now - usual) / max(sigma, _LEAST_SIGMA * abs(usual), 1e-12)
        return sigmas / self._config.loss_sigmas, (
            f"the loss has jumped from {usual:.3g} to {now:.3g}, {sigmas:.0f} sigmas"
        )
