"""What the monitor calls a collapse, on courses of metrics whose shape is known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from echojepa.runs.monitor import Monitor, MonitorConfig

NAMES = ("effective_rank", "feature_std", "online_effective_rank", "online_feature_std")
RNG = np.random.default_rng(0)


def course(loss: Iterable[float], **statistics: Iterable[float]) -> list[dict[str, float]]:
    """Metrics of logged steps; what is not given stays around 1."""
    losses = list(loss)
    columns = {name: list(RNG.normal(1, 0.03, len(losses))) for name in NAMES}
    columns |= {name: list(values) for name, values in statistics.items()} | {"loss": losses}
    return [{name: float(c[i]) for name, c in columns.items()} for i in range(len(losses))]


def first_alarm(
    metrics: list[dict[str, float]], watched: Iterable[str] = ("", "online_")
) -> tuple[int, str] | None:
    """Index of the first alarm, and its reason."""
    monitor = Monitor(MonitorConfig(), watched)
    for index, line in enumerate(metrics):
        alarm = monitor.observe(index, line)
        if alarm:
            return index, alarm.reason
    return None


def noisy(values: np.ndarray) -> np.ndarray:
    return values * RNG.normal(1, 0.03, len(values))


def healthy_loss(length: int = 400) -> np.ndarray:
    """A sharp drop, then a slow rise: what the published runs show."""
    steps = np.arange(length)
    return noisy(0.45 + 0.4 * np.exp(-steps / 10) + 0.1 * steps / length)


def test_a_healthy_run_raises_no_alarm() -> None:
    assert first_alarm(course(healthy_loss())) is None


@pytest.mark.parametrize("name", NAMES)
def test_features_that_lose_their_spread(name: str) -> None:
    values = noisy(np.concatenate([np.ones(200), np.linspace(1, 0.02, 60), np.full(140, 0.02)]))
    found = first_alarm(course(healthy_loss(), **{name: values}))
    assert found is not None
    assert 200 < found[0] < 270
    assert found[1].startswith(f"{name} has fallen from")


@pytest.mark.parametrize("to", [0.25, 1.2])
def test_a_loss_that_jumps_either_way(to: float) -> None:
    loss = healthy_loss()
    loss[300:] = to
    found = first_alarm(course(loss))
    assert found is not None
    assert 300 < found[0] <= 305
    assert "the loss has jumped from 0.5" in found[1]


def test_where_nothing_can_collapse_the_loss_alone_is_watched() -> None:
    """Whoever learns labels or pixels may well let go of what neither of them needs."""
    gone = {name: noisy(np.geomspace(1, 0.001, 400)) for name in NAMES}
    assert first_alarm(course(healthy_loss(), **gone)) is not None
    assert first_alarm(course(healthy_loss(), **gone), watched=()) is None
    loss = healthy_loss()
    loss[300:] = 1.2
    assert first_alarm(course(loss, **gone), watched=()) is not None


def test_a_few_odd_batches_are_no_alarm() -> None:
    loss, rank = healthy_loss(), np.ones(400)
    loss[[100, 101, 200]], rank[[150, 151, 250]] = 0.01, 0.05
    assert first_alarm(course(loss, effective_rank=rank)) is None


def test_the_transients_of_a_beginning_are_no_alarm() -> None:
    """Features gather at first and spread again; the same later on is an alarm."""
    dip = np.concatenate([np.ones(15), np.full(20, 0.02), np.ones(365)])
    assert first_alarm(course(healthy_loss(), online_feature_std=dip)) is None
    assert first_alarm(course(healthy_loss(), online_feature_std=np.roll(dip, 100))) is not None


def test_features_that_are_gone_after_a_few_steps() -> None:
    """What the first logged step showed is remembered, however soon it is lost."""
    values = noisy(np.concatenate([[1.0, 0.5], np.full(398, 0.1)]))
    found = first_alarm(course(healthy_loss(), feature_std=values))
    assert found is not None
    assert found[0] == MonitorConfig().window
    assert found[1].startswith("feature_std has fallen from")


def test_features_that_narrow_slowly_are_no_alarm() -> None:
    """As seen in 1,300 healthy steps on 24 clips: half the rank is lost, the deviation stays."""
    rank = noisy(np.linspace(28, 14, 1300))
    assert first_alarm(course(healthy_loss(1300), effective_rank=rank)) is None


def test_steps_that_were_dropped_say_nothing() -> None:
    loss = healthy_loss()
    loss[100:110] = np.nan
    assert first_alarm(course(loss)) is None


def test_health_ends_before_the_alarm_does_its_work() -> None:
    """Where to go back to: before the slide began in earnest, not just before the alarm."""
    rank = np.concatenate([np.ones(200), np.linspace(1, 0.1, 200)])
    monitor = Monitor(MonitorConfig())
    for step, line in enumerate(course(healthy_loss(), effective_rank=rank)):
        if monitor.observe(step, line):
            break
    assert 200 <= monitor.healthy_until < step - 30
    assert rank[monitor.healthy_until] > 0.6


def alarm_of(metrics: list[dict[str, float]]) -> tuple[int, int]:
    """Step of the first alarm, and the last one that may be gone back to."""
    monitor = Monitor(MonitorConfig())
    for step, line in enumerate(metrics):
        alarm = monitor.observe(step, line)
        if alarm:
            return step, alarm.healthy_until
    raise AssertionError("no alarm")


def test_features_that_were_steady_for_long_were_healthy() -> None:
    """They narrowed to 0.55 of their best, stayed there for 4,000 logged steps, and fell."""
    narrows = np.linspace(1, 0.55, 300)
    rank = noisy(np.concatenate([narrows, np.full(4000, 0.55), np.linspace(0.55, 0.02, 40)]))
    step, healthy_until = alarm_of(course(healthy_loss(4340), effective_rank=rank))
    assert step > 4300
    assert step - healthy_until < 40
    assert rank[healthy_until] > 0.6 * 0.55  # not half-way from there to the floor


def test_a_slow_creep_was_healthy_only_at_its_beginning() -> None:
    rank = noisy(np.linspace(1, 0.2, 4500))
    step, healthy_until = alarm_of(course(healthy_loss(4500), effective_rank=rank))
    assert step > 4000
    assert 1500 < healthy_until < 2300  # where it was half-way to the floor
