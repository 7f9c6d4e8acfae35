"""Which files programs open, as strace sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CALL = re.compile(r"open(?:at)?\(.*, (O_[A-Z_|]+)")
_OPENED = re.compile(r"= [0-9]+<(/.*)>$")


@dataclass(frozen=True)
class Tracer:
    """Has a command and its children traced."""

    log: Path

    def __post_init__(self) -> None:
        self.log.touch()

    @property
    def command(self) -> list[str | Path]:
        """What goes before the command."""
        return ["strace", "-f", "-y", "-qq", "-e", "trace=open,openat,creat", "-o", self.log]

    def opened(self, below: Path) -> set[tuple[str, str]]:
        """What was opened below a directory so far, but for directories: paths from there, and the
        flags."""
        found = set()
        for flags, path in self._opens():
            if path.startswith(f"{below}/") and "O_DIRECTORY" not in flags:
                found.add((path.removeprefix(f"{below}/"), flags))
        return found

    def _opens(self) -> Iterator[tuple[str, str]]:
        """The flags and the path of each call that opened something."""
        begun: dict[str, str] = {}  # by the thread
        for line in self.log.read_text(errors="replace").splitlines():
            thread, _, rest = line.partition(" ")
            if call := _CALL.search(rest):
                begun[thread] = call[1]
            if (opened := _OPENED.search(rest)) and thread in begun:
                yield begun.pop(thread), opened[1]
