"""What all of a mount has in common."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusefs.bpf import bpffs
from fusefs.bpf.task import Task
from fusefs.tree.error_log import ErrorLogs
from fusefs.tree.formats import Formats
from fusefs.tree.kept import Kept
from fusefs.tree.recent import Recent
from fusefs.tree.scratch import Scratch

if TYPE_CHECKING:
    from fusefs.bpf.survey import Survey

# The directory of all objects, at the root of the mount.
BY_ID = ".by-id"
# Slots of cgroups that are remembered.
_SLOTS = 1024
# Programs whose last run is remembered, each with some output.
_RUNS = 64


@dataclass(slots=True)
class Context:
    """The bpffs directory that is shown, the absolute path where it is, and whether it was mounted
    to change nothing, for others than who mounted it, and with `.by-id/` listed; the logs of
    refused operations, and the formats of maps.

    `scratch` are the files that tools make beside those that they save; `cgroups` the directories
    of cgroups that slots were set to, and their inode numbers, by map id and key. `followed` are
    the ids of the rings whose records somebody reads as they come.
    `moment` is another for each request: what was seen of a pin holds for one. `kept` are maps that
    stay open for a moment.
    `composing` is what makes the text of a graph, `counting` what holds the statistics of programs
    on, `running` are the runs of programs that go on, and `runs` the last ones, by their ids.
    """

    root: bpffs.Directory
    mountpoint: str
    read_only: bool = False
    shared: bool = False
    by_id_listed: bool = False
    moment: int = 0
    kept: Kept = field(default_factory=Kept)
    logs: ErrorLogs = field(default_factory=ErrorLogs)
    formats: Formats = field(default_factory=Formats)
    started_ns: int = field(default_factory=time.time_ns)
    scratch: Scratch = field(default_factory=Scratch)
    cgroups: Recent[tuple[int, bytes], tuple[str, int]] = field(
        default_factory=lambda: Recent(_SLOTS)
    )
    followed: set[int] = field(default_factory=set)
    _survey: Survey | None = None
    composing: Task[str] | None = None
    counting: set[int] = field(default_factory=set)
    running: Recent[int, Task[bytes]] = field(default_factory=lambda: Recent(_RUNS))
    runs: Recent[int, Task[bytes]] = field(default_factory=lambda: Recent(_RUNS))

    @property
    def survey(self) -> Survey:
        """What uses what."""
        if self._survey is None:
            from fusefs.bpf.survey import Survey  # noqa: PLC0415 - nobody has asked so far

            self._survey = Survey()
        return self._survey
