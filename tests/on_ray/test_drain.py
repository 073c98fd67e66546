"""When a group that loses a node saves, and when it stands still."""

from __future__ import annotations

import pytest
from ray.train.v2._internal.constants import DEFAULT_PREEMPTION_DEADLINE_S
from ray.train.v2.api.preemption import PreemptionInfo

from echojepa.on_ray import drain
from echojepa.on_ray.drain import Drain


class Clock:
    now = 1000.0

    def time(self) -> float:
        return self.now


class Story:
    """A drain at a clock that the test moves; `told` is what Ray Train has said so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        monkeypatch.setattr(drain, "time", self.clock)
        self.told: PreemptionInfo | None = None
        self.noted: list[tuple[list[str], float]] = []
        self.drain = Drain(lambda: self.told, noted=lambda *said: self.noted.append(said))

    def tell(self, seconds_left: float | None, rank: int = 1) -> None:
        end = None if seconds_left is None else int((self.clock.now + seconds_left) * 1000)
        self.told = PreemptionInfo(end, {"a1": [rank]})

    def due_at(self, second: float) -> bool:
        self.clock.now = 1000.0 + second
        return self.drain.save_due()


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return Story(monkeypatch)


def test_without_a_notice_nothing_is_due(story: Story) -> None:
    assert not story.due_at(0)
    assert story.drain.saved() == 0.0, "a save for another reason holds nobody"
    assert story.noted == []


@pytest.mark.parametrize("stated", [True, False])
def test_saves_at_once_and_again_before_the_deadline(story: Story, stated: bool) -> None:
    end = 100.0 if stated else DEFAULT_PREEMPTION_DEADLINE_S
    story.tell(end if stated else None)
    assert story.due_at(0)
    assert story.noted == [(["a1"], end)]
    story.clock.now += 8.0
    assert story.drain.saved() == 0.0, "there is time for more steps"
    assert not story.due_at(9)
    assert not story.due_at(end - 17)
    assert story.due_at(end - 15), "twice what the first save took is kept"
    assert story.drain.saved() > 15.0, "until after the deadline"
    assert len(story.noted) == 1


def test_a_short_notice_ends_training_with_the_first_save(story: Story) -> None:
    story.tell(25.0)
    assert story.due_at(0)
    story.clock.now += 15.0
    assert story.drain.saved() > 10.0


def test_a_later_deadline_does_not_put_off_the_last_save(story: Story) -> None:
    story.tell(100.0)
    assert story.due_at(0)
    story.drain.saved()
    story.tell(1000.0)
    assert not story.due_at(50)
    assert story.due_at(95)


def test_a_second_node_with_less_time_moves_the_deadline(story: Story) -> None:
    story.tell(1000.0)
    assert story.due_at(0)
    story.drain.saved()
    assert not story.due_at(100)
    story.tell(5.0)
    assert story.due_at(101)
    assert story.drain.saved() > 4.0


def test_without_its_own_node_rank_0_stands_still_after_the_first_save(story: Story) -> None:
    story.tell(1000.0, rank=0)
    assert story.due_at(0)
    assert story.drain.saved() > 1000.0
