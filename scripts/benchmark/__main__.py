"""The command: `scripts/bench [--quick] [--only GROUP] [--json FILE]`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import NoReturn

from benchmark import dumps, growth, listings, single
from benchmark.measure import MeasureError
from benchmark.setting import Setting, Sizes, setting
from benchmark.table import Row, markdown, write_json

GROUPS: Mapping[str, Sequence[Callable[[Setting], Iterator[Row]]]] = {
    "dump": [dumps.dumps],
    "write": [dumps.writing],
    "list": [listings.names, listings.details, listings.contents],
    "single": [single.commands, single.operations],
    "load": [single.beside_a_dump],
    "memory": [listings.memory],
    "growth": [growth.growth],
    "start": [growth.start],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table. The exit code: 0, or 1 when something could not be measured."""
    given = _parser().parse_args(arguments)
    sizes = Sizes.quick() if given.quick else Sizes()
    if given.entries:
        sizes = Sizes.of(given.entries)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    begun = time.monotonic()
    rows: list[Row] = []
    with setting(sizes) as made:
        for group in given.only or GROUPS:
            rows += _measured(made, group)
    print(markdown(rows))
    seconds = round(time.monotonic() - begun)
    print(f"\nTimes are medians, and less is better. Measured in {seconds} s.")
    if given.json:
        settings = {"quick": given.quick, "seconds": seconds, **vars(sizes)}
        write_json(given.json, rows, settings)
    return 1 if any(row.failed for row in rows) else 0


def _measured(made: Setting, group: str) -> Iterator[Row]:
    """The rows of a group. What fails becomes a row that says why, and the others go on."""
    for work in GROUPS[group]:
        name = f"{group}: {work.__name__}"
        begun = time.monotonic()
        try:
            yield from work(made)
        except (MeasureError, OSError) as error:
            yield Row(group, name, "", None, "–", None, failed=str(error))
        print(f"== {name}: {time.monotonic() - begun:.1f} s", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure bpf-fusefs against bpftool, the kernel and a bare file system.",
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes, about a minute")
    parser.add_argument("--only", action="append", choices=[*GROUPS], help="one group of rows")
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE, too")
    parser.add_argument("--entries", type=int, metavar="N", help="just try it, on N entries")
    return parser


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave as an exception does, which cleans up."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
