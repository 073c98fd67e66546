"""Notices of three clouds, over HTTP as their machines see them."""

from __future__ import annotations

import time

import pytest
from support.metadata import metadata_service
from support.s3 import free_port

from echojepa.errors import ClusterError
from echojepa.on_ray import termination
from echojepa.on_ray.termination import Metadata, Notice, drain, find_cloud, watch


@pytest.mark.parametrize(
    ("kind", "seconds"), [("ec2", 120), ("compute_engine", 20), ("azure", 120)]
)
def test_a_notice_is_understood(kind: str, seconds: int) -> None:
    with metadata_service(kind) as cloud:
        ask = find_cloud(Metadata(cloud.url), 0.0)
        assert ask() is None
        cloud.ends_in(120)
        notice = ask()
        assert notice is not None
        assert seconds - 5 < notice.ends_at - time.time() <= seconds


def test_maintenance_of_a_host_is_a_notice_too() -> None:
    with metadata_service("compute_engine") as cloud:
        cloud.maintenance = True
        cloud.ends_in(60)
        notice = find_cloud(Metadata(cloud.url), 0.0)()
    assert notice is not None and "maintenance" in notice.reason


def test_an_unknown_cloud_and_none_at_all() -> None:
    with (
        metadata_service("ec2") as cloud,
        pytest.raises(ClusterError, match="of no cloud known here"),
    ):
        find_cloud(Metadata(f"{cloud.url}/elsewhere"), 0.0)
    with pytest.raises(ClusterError, match="no cloud metadata service answers"):
        find_cloud(Metadata(f"http://127.0.0.1:{free_port()}"), 0.0)


def test_watching_outlasts_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the service, and of the drain; what is drained is what the caller named."""
    drained: list[tuple[str | None, str | None]] = []

    def refuse_once(notice: Notice, address: str | None, node_id: str | None) -> None:
        assert "terminate" in notice.reason
        drained.append((address, node_id))
        if len(drained) == 1:
            raise ClusterError("not now", "Try again.", "node")

    monkeypatch.setattr(termination, "drain", refuse_once)
    with metadata_service("ec2") as cloud:
        cloud.ends_in(60)
        cloud.fails_once.add("/latest/meta-data/spot/instance-action")
        notice = watch(Metadata(cloud.url), "head:6379", "abc", 0.01)
        assert not cloud.fails_once
    assert notice.ends_at - time.time() > 50
    assert drained == [("head:6379", "abc")] * 2


def test_a_machine_that_ends_later_is_used_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    drained: list[float] = []
    monkeypatch.setattr(termination, "drain", lambda *_: drained.append(time.time()))
    with metadata_service("ec2") as cloud:
        cloud.ends_in(termination._LEAD_SECONDS + 2)
        told = time.time()
        watch(Metadata(cloud.url), None, None, 0.01)
    assert 0.5 < drained[0] - told < 10, "its notice is in whole seconds"


def test_a_drain_of_no_cluster_says_so() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ClusterError, match="could not be drained: .*refused"):
        drain(Notice("test", time.time() + 10.0), address, None)
