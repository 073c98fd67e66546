"""Tables of scores: a task's, its groups', and which result is better than all others."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence

import numpy as np

from echojepa.probes.fitting import ProbeResult
from echojepa.probes.intervals import Interval, differences
from echojepa.probes.metrics import HEADLINE, SHOWN, goodness
from echojepa.probes.suites.transfer import Transfer


def spelt(metric: str) -> str:
    """The name of a metric as people read it."""
    return html.escape(metric.replace("_", " "))


def with_interval(score: float, interval: Interval) -> str:
    """A score and its interval."""
    return f"{score:.3f} <small>[{interval[0]:.3f}, {interval[1]:.3f}]</small>"


def clearly_best(results: Sequence[ProbeResult]) -> ProbeResult | None:
    """The result whose headline score beats all others by differences whose intervals exclude zero.

    None, if none does; one result alone beats nothing.

    Args:
        results: of one task, on the same test patients.
    """
    kind = results[0].task.kind
    metric = HEADLINE[kind]
    if len(results) < 2 or not all(np.isfinite(r.test[metric]) for r in results):
        return None
    best = max(results, key=lambda r: goodness(kind, r.test[metric]))
    others = [r for r in results if r is not best]
    clear = (differences(best.drawn, other.drawn)[metric].excludes_zero for other in others)
    return best if all(clear) else None


def task_table(results: Sequence[ProbeResult]) -> str:
    """The scores of all features on one task, as HTML."""
    task = results[0].task
    names = (*SHOWN[task.kind], *(f"auroc_below_{cutoff:g}" for cutoff in task.cutoffs))
    heads = "".join(f"<th>{spelt(n)}</th>" for n in names)
    best = clearly_best(results)
    rows = "".join(
        f"<tr{' class=best' if r is best else ''}><td>{html.escape(r.features)}</td>"
        + "".join(f"<td>{with_interval(r.test[n], r.intervals[n])}</td>" for n in names)
        + "</tr>"
        for r in results
    )
    return f"<table><tr><th>features</th>{heads}</tr>{rows}</table>"


def groups_table(results: Sequence[ProbeResult]) -> str:
    """The headline score in every group of those columns that hold several, as HTML.

    Empty, if no column does.
    """
    metric = HEADLINE[results[0].task.kind]
    found = {r.features: r.by_group for r in results}
    lines = next(iter(found.values()))
    values = Counter(line["column"] for line in lines)
    told = [i for i, line in enumerate(lines) if values[line["column"]] > 1]
    if not told:
        return ""
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in found)
    rows = ""
    for i in told:
        line = lines[i]
        cells = "".join(
            f"<td>{with_interval(g[i]['test'][metric], g[i]['test_intervals'][metric])}</td>"
            for g in found.values()
        )
        name = html.escape(f"{line['column']}: {line['value']}")
        rows += f"<tr><td>{name}</td><td>{line['num_test_patients']}</td>{cells}</tr>"
    return (
        f"<details><summary>{spelt(metric)} by group</summary><table>"
        f"<tr><th>group</th><th>test patients</th>{heads}</tr>{rows}</table></details>"
    )


def transfer_table(transfers: Sequence[Transfer]) -> str:
    """The first scores of every probe on other people's patients, as HTML."""
    rows = ""
    for one in transfers:
        result = one.result
        names = SHOWN[result.task.kind][:3]
        cells = "".join(
            f"<td>{spelt(n)} {with_interval(result.test[n], result.intervals[n])}</td>"
            for n in names
        )
        where = f"{one.target}, {result.task.name}, {result.features}"
        seen = f"probe {one.num_overlapping or 'none'}; encoder {one.pretraining.describe()}"
        told = "".join(f"<td>{html.escape(t)}</td>" for t in (where, one.calibration, seen))
        rows += f"<tr>{told}{cells}</tr>"
    return (
        "<p class='note'>Strict: the probe as it is. Recalibrated: its numbers moved to the mean "
        "and deviation of the other manifest's training labels.</p><div class='wide'><table>"
        "<tr><th>patients, task, features</th><th></th><th>test patients seen in training</th>"
        f"<th colspan=3>scores</th></tr>{rows}"
        "</table></div>"
    )
