"""Tables of a benchmark, once as data, and as Markdown and HTML of the same."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from echojepa.benchmark.board import FEWEST_PATIENTS, FEWEST_SEEDS, Board, Score
from echojepa.benchmark.matching import PlannedArm
from echojepa.benchmark.measures import Measure
from echojepa.benchmark.runs import RunRecord
from echojepa.probes.tasks import Task

Runs = Mapping[tuple[str, int], RunRecord]
"""By arm and seed."""
ABSENT = "–"
_PLANNED = ("arm", "GFLOP per step", "steps", "clips", "TFLOP of a run")
_COST_NOTE = (
    "Floating-point operations of the training steps, matrix products and attention, counted from "
    "sizes; those of a run include its target's."
)


class Cell(NamedTuple):
    """What stands in one place."""

    text: str
    small: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows whose first cell is their name."""

    title: str
    note: str
    heads: list[Cell]
    rows: list[list[Cell]]

    def as_markdown(self) -> str:
        """With a heading."""
        lines = [self.heads, *self.rows]
        text = ["| " + " | ".join(map(_markdown, line)) + " |" for line in lines]
        rule = "|---" * len(self.heads) + "|"
        body = "\n".join([text[0], rule, *text[1:]])
        return f"## {self.title}\n\n{self.note}\n\n{body}\n"

    def as_html(self) -> str:
        """Without the heading."""
        heads = "".join(f"<th>{_html(cell)}</th>" for cell in self.heads)
        rows = "".join(
            "<tr>"
            + "".join(f"<td{' class=best' if c.strong else ''}>{_html(c)}</td>" for c in row)
            + "</tr>"
            for row in self.rows
        )
        note = f"<p class='note'>{html.escape(self.note)}</p>"
        return f"{note}<div class='wide'><table><tr>{heads}</tr>{rows}</table></div>"


def score_table(
    title: str, board: Board, measures: Sequence[Measure], tasks: Mapping[str, Task]
) -> Table:
    """Rows are arms, columns are measures."""
    winners = {measure: board.clear_winner(measure) for measure in measures}
    rows = []
    for arm in board.arms:
        cells = [_score_cell(board.score(arm, m), strong=winners[m] == arm) for m in measures]
        rows.append([Cell(arm), *cells])
    note = (
        "Mean over seeds on test patients; in brackets the 95% interval over patients, after ± the "
        "standard deviation over seeds. Bold: better than every other row by clear differences."
    )
    return Table(title, note, [Cell("arm"), *(_head(m, tasks) for m in measures)], rows)


def difference_table(
    board: Board, minus: str, measures: Sequence[Measure], tasks: Mapping[str, Task]
) -> Table:
    """What every arm has more than one of them: rows are measures, columns arms."""
    arms = [name for name in board.arms if name != minus]
    rows = []
    for measure in measures:
        found = [board.difference(arm, minus, measure) for arm in arms]
        cells = [_score_cell(d, strong=d is not None and d.is_clear, sign=True) for d in found]
        rows.append([_head(measure, tasks), *cells])
    note = (
        f"Paired differences to {minus}, over the same patients and seeds. Bold, or clear: the "
        f"95% interval holds no zero and all seeds agree on the sign, of {FEWEST_SEEDS} seeds and "
        f"{FEWEST_PATIENTS} test patients at least. Nothing is corrected for the number of "
        "comparisons."
    )
    heads = [Cell("measure"), *(Cell(arm) for arm in arms)]
    return Table(f"Differences to {minus}", note, heads, rows)


def plan_table(plan: Sequence[PlannedArm], num_seeds: int) -> Table:
    """What every arm will be given."""
    rows = [[*_planned(arm), Cell(str(num_seeds))] for arm in plan]
    return Table("Plan", _COST_NOTE, [Cell(head) for head in (*_PLANNED, "seeds")], rows)


def cost_table(plan: Sequence[PlannedArm], runs: Runs) -> Table:
    """What every arm was given, and what its runs took."""
    rows = []
    for arm in plan:
        done = [record for (name, _), record in runs.items() if name == arm.name]
        seconds = sum(record.seconds for record in done) / len(done) if done else None
        took = Cell(ABSENT if seconds is None else f"{seconds:,.0f}")
        rows.append([*_planned(arm), took, Cell(str(len(done)))])
    note = (
        f"{_COST_NOTE} Seconds are the mean of one run by itself, on this machine, with its online "
        "probes."
    )
    heads = [Cell(head) for head in (*_PLANNED, "seconds", "runs done")]
    return Table("Costs", note, heads, rows)


def _planned(arm: PlannedArm) -> list[Cell]:
    return [
        Cell(arm.name, f"after {arm.target.name}" if arm.target else ""),
        Cell(f"{arm.step.flops / 1e9:,.2f}"),
        Cell(f"{arm.num_steps:,}"),
        Cell(f"{arm.num_steps * arm.step.num_clips:,}"),
        Cell(f"{arm.total('flops') / 1e12:,.3f}"),
    ]


def _head(measure: Measure, tasks: Mapping[str, Task]) -> Cell:
    unit = tasks[measure.task].unit if measure.metric in ("mae", "rmse") else ""
    arrow = "↓" if measure.lower_is_better else "↑"
    unit = f" ({unit})" if unit else ""
    return Cell(f"{measure}{unit} {arrow}")


def _score_cell(score: Score | None, *, strong: bool, sign: bool = False) -> Cell:
    if score is None:
        return Cell(ABSENT)
    form = "+.3f" if sign else ".3f"
    low, high = score.interval
    spread = "" if score.spread is None else f" ±{score.spread:.3f}"
    small = f"[{low:{form}}, {high:{form}}]{spread}"
    return Cell(f"{score.value:{form}}", small, strong)


def _markdown(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    text = f"**{text}**" if cell.strong else text
    return f"{text} {cell.small}".rstrip()


def _html(cell: Cell) -> str:
    small = f" <small>{html.escape(cell.small)}</small>" if cell.small else ""
    return html.escape(cell.text) + small
