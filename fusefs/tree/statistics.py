"""`stats`: how often a program ran, and for how long; and having the kernel count that."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from fusefs.bpf.credentials import Caller
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program, enable_statistics
from fusefs.text.errors import Refused
from fusefs.tree.files import Reading, TextFile
from fusefs.tree.info import Info, to_yaml
from fusefs.tree.node import Change, Handle, Opening, refusal, wants_write

# Whether statistics are on for good; what others hold on for a time, the kernel does not tell.
_SYSCTL = Path("/proc/sys/kernel/bpf_stats_enabled")
_HOW = "to count for ten seconds: sleep 10 > stats; for good: sysctl kernel.bpf_stats_enabled=1"


class Stats(TextFile):
    """What the kernel has counted while statistics were on. They are on, for all programs, as long
    as a `stats` file is open for writing."""

    __slots__ = ()

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & 0o666

    def render(self, obj: Object) -> bytes:
        assert isinstance(obj, Program)  # only programs are given this file
        info = obj.information()
        fields: Info = {"run_cnt": info.run_cnt, "run_time_ns": info.run_time_ns}
        fields["average_ns"] = round(info.run_time_ns / info.run_cnt, 1) if info.run_cnt else None
        fields["recursion_misses"] = info.recursion_misses
        fields["statistics"] = self._state()
        return to_yaml(fields).encode()

    def _state(self) -> str:
        if self.subject.context.counting:
            return "on, as long as this file or that of another program is open for writing"
        try:
            if _SYSCTL.read_text().strip() == "1":
                return "on, by sysctl kernel.bpf_stats_enabled"
        except OSError:
            pass  # before Linux 5.1 there were none: then the way to turn them on says so
        return f"off, unless somebody else holds them on; {_HOW}"

    def change(self, change: Change, caller: Caller) -> None:
        """`>` truncates it first, which means nothing here."""

    def handle(self, obj: Object, contents: bytes, opening: Opening) -> Handle:
        if not wants_write(opening.flags):
            return Reading(self.render, obj, contents)
        try:
            return Counting(self, obj, contents, opening)
        except OSError as error:
            refused = self.refuse(obj, "write", error)
            obj.close()
            raise refused from error


class Counting(Reading):
    """An open `stats` file, which holds statistics on."""

    def __init__(self, file: Stats, obj: Object, contents: bytes, opening: Opening) -> None:
        super().__init__(file.render, obj, contents)
        self._stats = file
        if not opening.caller.is_root:
            raise refusal(errno.EPERM, "statistics slow all programs down: only root turns them on")
        try:
            self._fd = enable_statistics()
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise refusal(errno.EOPNOTSUPP, "this takes Linux 5.8; or else the sysctl") from None
        file.subject.context.counting.add(self._fd)

    def write(self, offset: int, data: bytes) -> int:
        if not data.strip():
            return len(data)
        raise self._stats.refuse(self._object, "write", Refused(f"there is nothing to set; {_HOW}"))

    def truncate(self, size: int) -> None:
        """As when it is opened."""

    def close(self) -> None:
        self._stats.subject.context.counting.discard(self._fd)
        os.close(self._fd)
        super().close()
