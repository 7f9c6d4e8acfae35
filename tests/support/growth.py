"""What a process holds: descriptors, threads, memory."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """What a process held at a moment."""

    descriptors: Counter[str]
    threads: int
    kilobytes: int  # of memory that is its own and no file's

    @classmethod
    def by(cls, pid: int) -> Held:
        """What a process holds now."""
        process = Path(f"/proc/{pid}")
        descriptors: Counter[str] = Counter()
        for fd in os.listdir(process / "fd"):
            with contextlib.suppress(FileNotFoundError):  # it has been closed by now
                descriptors[re.sub(r"\d+", "N", os.readlink(process / "fd" / fd))] += 1
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return cls(descriptors, int(status["Threads"]), int(status["RssAnon"].split()[0]))

    def __str__(self) -> str:
        return (
            f"{self.descriptors.total()} descriptors, {self.threads} threads, "
            f"{self.kilobytes / 1024:.1f} MiB"
        )
