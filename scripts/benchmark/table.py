"""The table of results, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Goal:
    """What is wanted: at most so many times the peer's, or at most so much."""

    ratio: float | None = None
    most: float | None = None

    def words(self, unit: str) -> str:
        if self.ratio is not None:
            return f"≤ {self.ratio:g} ×"
        return "" if self.most is None else f"≤ {number(self.most)} {unit}"

    def met(self, ours: float, ratio: float | None) -> bool | None:
        """Whether it is reached; None where there is no goal."""
        if self.ratio is not None:
            return ratio is not None and ratio <= self.ratio
        return None if self.most is None else ours <= self.most


@dataclass(frozen=True)
class Row:
    """One comparison. `ours` and `theirs` are medians in `unit`, and less is better; of what could
    not be measured there is a reason, `failed`."""

    group: str
    work: str
    unit: str
    ours: float | None
    peer: str
    theirs: float | None
    goal: Goal = Goal()
    note: str = ""
    failed: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours as a multiple of theirs; less than 1 is better than they."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def met(self) -> bool | None:
        return None if self.ours is None else self.goal.met(self.ours, self.ratio)

    def cells(self) -> list[str]:
        """What the table shows of it."""
        ours, theirs, ratio = map(number, (self.ours, self.theirs, self.ratio))
        verdict = {True: "met", False: "NOT met", None: ""}[self.met]
        return [
            self.work,
            f"{ours} {self.unit}",
            f"{self.peer}: {theirs} {self.unit}",
            ratio,
            self.goal.words(self.unit),
            "failed" if self.failed else verdict,
        ]

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


_HEAD = ["work", "ours", "peer", "ratio", "goal", ""]


def number(value: float | None) -> str:
    """Three digits, as people write them."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if value < 10 else 1}f}" if value >= 0.1 or not value else f"{value:.3g}"


def markdown(rows: Sequence[Row]) -> str:
    """The table, to be read as it is and on a page of docs; notes follow it."""
    cells = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]

    def line(row: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    lines = [line(cells[0]), line(["-" * width for width in widths]), *map(line, cells[1:])]
    told = [(row.work, row.failed or row.note) for row in rows if row.failed or row.note]
    notes = dict.fromkeys(f"{work}: {note}" for work, note in told)
    return "\n".join([*lines, "", *notes]).rstrip()


def write_json(path: str, rows: Iterable[Row], settings: dict[str, object]) -> None:
    """Write the rows, and what they were measured on."""
    machine = {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    whole = {"machine": machine, "settings": settings, "rows": [row.as_json() for row in rows]}
    text = json.dumps(whole, indent=2, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")
