"""A collapse made on purpose, in a plain process: found, undone, and not found in healthy runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.ranks import pretrain_plain

from echojepa.errors import CollapseError
from echojepa.runs.audit import audit_run
from echojepa.runs.folder import RunFolder, read_lines
from echojepa.runs.monitor import Monitor, MonitorConfig
from echojepa.runs.rollback import RolledBackError

Tree = dict[str, Any]


@pytest.fixture
def tree(tiny_tree: Tree) -> Tree:
    """A target without memory at a rate that rises: it collapses within some tens of steps."""
    tiny_tree["optimizer"] |= {
        "lr": {"peak": 2e-2, "start": 1e-5, "warmup_steps": 200},
        "momentum": {"peak": 0.0},
    }
    tiny_tree["loop"] |= {
        "num_steps": 60,
        "log_every_steps": 1,
        "checkpoint_every_steps": 3,
        "image_every_steps": 60,
    }
    tiny_tree["monitor"] = {"window": 10}
    return tiny_tree


@pytest.mark.integration
def test_a_collapse_is_found_and_undone(tree: Tree) -> None:
    """Restarted as a group of workers is, the run goes back, draws other samples, and ends."""
    tree["monitor"]["lr_factor"] = 0.02
    with pytest.raises(RolledBackError, match=r"feature_std has fallen from .* back to step"):
        pretrain_plain(tree)
    folder = RunFolder(tree["run_dir"])
    (intervention,) = folder.interventions()
    reached = folder.events("collapse")[0]["step"]
    assert 0 < intervention["step"] < reached - 5
    assert not [
        f for f in folder.checkpoints.glob("step_*") if int(f.name[5:]) > intervention["step"]
    ]
    assert list(folder.checkpoints.glob("abandoned_*_step_*"))
    pretrain_plain(tree)
    assert folder.attempts()[1]["start_step"] == intervention["step"]
    scaled, *_ = folder.events("learning_rate_scaled")
    assert scaled["peak"] == pytest.approx(4e-4)
    report = audit_run(folder)
    assert not report.findings
    assert report.num_steps == 60
    assert report.num_redone_steps == reached - intervention["step"]
    lines = {line["step"]: line for line in read_lines(folder.path / "metrics.jsonl")}
    spreads = [lines[step]["feature_std"] for step in sorted(lines)]
    assert min(spreads[-5:]) > 0.5 * max(spreads)


@pytest.mark.integration
def test_other_samples_are_drawn_after_a_rollback(tree: Tree, tmp_path: Path) -> None:
    """The same steps with the same weights give other losses, and the audit knows why."""
    tree["optimizer"] |= {"lr": {"peak": 0.0}, "momentum": {"peak": 0.99}}
    tree["loop"] |= {"num_steps": 12}
    plain, changed = dict(tree), dict(tree)
    plain["run_dir"], changed["run_dir"] = str(tmp_path / "plain"), str(tmp_path / "changed")
    before = pretrain_plain(plain)
    folder = RunFolder(changed["run_dir"])
    folder.path.mkdir()
    folder.intervene(4, 4 * 8, "test")
    (folder.path / "run.json").write_text('{"run_id": "test"}')
    after = pretrain_plain(changed)
    assert after[:4] == before[:4]
    assert all(one != other for one, other in zip(after[4:], before[4:], strict=True))
    assert not audit_run(folder).findings


@pytest.mark.integration
@pytest.mark.parametrize("policy", [{"on_alarm": "stop"}, {"max_rollbacks": 0}])
def test_a_run_that_may_not_go_back_ends(tree: Tree, policy: Tree) -> None:
    tree["monitor"] |= policy
    with pytest.raises(CollapseError, match=r"after 0 rollback\(s\).*Fork from a healthy"):
        pretrain_plain(tree)
    assert not RunFolder(tree["run_dir"]).interventions()


@pytest.mark.integration
def test_a_run_that_would_discard_too_much_ends(tree: Tree) -> None:
    """And says how many steps it would be; nothing is touched."""
    tree["monitor"]["max_rollback_steps"] = 4
    with pytest.raises(CollapseError, match="would discard") as caught:
        pretrain_plain(tree)
    folder = RunFolder(tree["run_dir"])
    (event,) = folder.events("collapse")
    assert event["discards"] == event["step"] - event["healthy"] > 4
    assert f"monitor.max_rollback_steps={event['discards']}" in caught.value.remedy
    assert f"discard {event['discards']} steps, the limit is 4" in str(caught.value)
    assert not folder.interventions()
    assert not list(folder.checkpoints.glob("abandoned_*"))
    tree["monitor"]["max_rollback_steps"] = event["discards"] + 5
    with pytest.raises(RolledBackError, match="back to step"):
        pretrain_plain(tree)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_healthy_runs_raise_no_alarm(tiny_tree: Tree) -> None:
    """Ten seeds of 300 steps; prints how near each came to an alarm."""
    tiny_tree["optimizer"] |= {
        "lr": {"peak": 3e-4, "start": 3e-5, "warmup_steps": 20},
        "momentum": {"peak": 0.996},
    }
    tiny_tree["loop"] |= {"num_steps": 300, "log_every_steps": 2, "checkpoint_every_steps": 300}
    for seed in range(10):
        run = {**tiny_tree, "seed": seed, "run_dir": f"{tiny_tree['run_dir']}_{seed}"}
        pretrain_plain(run)
        monitor = Monitor(MonitorConfig())
        lines = read_lines(Path(run["run_dir"]) / "metrics.jsonl")
        assert not any(monitor.observe(line["step"], line) for line in lines)
        print(f"seed {seed}: {len(lines)} logged steps, healthy until {monitor.healthy_until}")
