"""Short and long forms of the same test, and the figures that it gives.

A test that tries for a while is marked `@pytest.mark.soak(short=SECONDS)` and asks for `span`, the
seconds for which it is to try: `short` ordinarily, and with `--soak MINUTES` its share of those
minutes. `share` is how much longer than others it takes. What it counted goes to `figure`, and
the figures of all are printed at the end of a soak.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from support import mounting

MARKER = "soak(short, share=1): tries for `short` seconds, or for its share of what --soak gives"
_FIGURES = "figure: "
_total = pytest.StashKey[float]()


class Figure(Protocol):
    """Notes what a test has counted or measured."""

    def __call__(self, what: str, value: object, /) -> None:
        """For example `figure("dumps compared", 1234)`."""


def add_option(parser: pytest.Parser) -> None:
    """`--soak MINUTES`."""
    help_text = "how long the long forms of the tests marked `soak` take in all"
    parser.addoption("--soak", type=float, default=0, metavar="MINUTES", help=help_text)


def share_out(session: pytest.Session) -> None:
    """Count among how many the minutes are divided; a mount may then live as long as its test."""
    session.config.stash[_total] = sum(_share(item) for item in session.items)
    mounting.longest += 60 * float(session.config.getoption("--soak"))


def seconds(item: pytest.Item) -> float:
    """For how long a test is to try."""
    marker = item.get_closest_marker("soak")
    assert marker, f"{item.nodeid} asks for `span`, so it has to be marked `soak`"
    minutes = float(item.config.getoption("--soak"))
    if not minutes:
        return float(marker.kwargs["short"])
    return 60 * minutes * _share(item) / item.config.stash[_total]


def _share(item: pytest.Item) -> float:
    marker = item.get_closest_marker("soak")
    return float(marker.kwargs.get("share", 1)) if marker else 0


def passing(span: float, least: int = 1) -> Iterator[int]:
    """Count up from 0 until `span` seconds have passed, and at least `least` times."""
    deadline = time.monotonic() + span
    turn = 0
    while turn < least or time.monotonic() < deadline:
        yield turn
        turn += 1


def tried(attempt: Callable[[], object], span: float) -> int:
    """Call `attempt`, a property of hypothesis, again and again for `span` seconds; how often.

    Each call of a property draws new examples.
    """
    return sum(1 for _ in passing(span) if attempt() is None)


def noting(item: pytest.Item) -> Figure:
    """Where a test tells its figures."""

    def figure(what: str, value: object, /) -> None:
        # As text: a report goes from one process of pytest-xdist to another, which takes no more.
        shown = f"{value:,}" if isinstance(value, int) else f"{value}"
        item.user_properties.append((_FIGURES + what, shown))

    return figure


def table(reports: Iterator[pytest.TestReport]) -> list[str]:
    """All figures, as lines of a table in Markdown."""
    lines = []
    for report in reports:
        for what, value in report.user_properties:
            if what.startswith(_FIGURES):
                name = report.nodeid.rpartition("/")[2]
                lines.append(f"| {name} | {what.removeprefix(_FIGURES)} | {value} |")
    return ["| test | what | figure |", "| --- | --- | ---: |", *lines] if lines else []
