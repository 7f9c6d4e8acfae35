"""`test_run`: running a program on input that is written, and reading what it gave.

Source: Documentation/bpf/bpf_prog_run.rst.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusefs.bpf import names
from fusefs.bpf.credentials import Caller
from fusefs.bpf.program import Outcome, Program
from fusefs.bpf.task import Task
from fusefs.text.errors import Refused
from fusefs.tree.files import ObjectFile
from fusefs.tree.info import Info
from fusefs.tree.node import Attributes, Change, Handle, Opening

# A run is waited for so many seconds before the write returns; what takes longer is waited for by
# those who read.
_PATIENCE = 0.05
# So many may run at a time.
_MOST = 4
# Types whose input is their context and no packet, by `enum bpf_prog_type`.
_ON_CONTEXT = frozenset({"raw_tracepoint", "syscall", "sk_lookup", "struct_ops", "tracing"})
_XDP_ACTION = names.Enumeration(
    enum="xdp_action", prefix="XDP_", builtin="aborted drop pass tx redirect"
)
_NUMBERS = ("repeat", "flags", "cpu")
_BYTES = ("data_in", "ctx_in")

_free = threading.BoundedSemaphore(_MOST)


class TestRun(ObjectFile):
    """What is written to it, in one write(2), is what the program is run on once. Reading gives the
    result: of the run of this open file, else of the last one."""

    __slots__ = ()
    __test__ = False  # no test of pytest's

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & 0o666

    def attributes(self) -> Attributes:
        attributes = self.basics(self.subject.status())
        attributes.size = len(self.last())
        return attributes

    def last(self) -> bytes:
        """The result of the last run; empty before the first."""
        with self.subject.open() as obj:
            return self.subject.context.runs.get(obj.info.id, b"")

    def change(self, change: Change, caller: Caller) -> None:
        """`>` truncates it first, which means nothing here."""

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        obj = self.subject.open()
        assert isinstance(obj, Program)  # only programs are given this file
        return Trying(self, obj)


class Trying(Handle):
    """An open `test_run`. The text that is read begins where the last write ended, or at 0 for who
    goes back there."""

    def __init__(self, file: TestRun, program: Program) -> None:
        self._file = file
        self._program = program
        self._run: Task[Outcome] | None = None
        self._request: _Request
        self._end = 0  # of the last write
        self._origin: int | None = 0  # where the text begins; None until it is read

    @property
    def awaited(self) -> int | None:
        return self._run.ended if self._run else None

    @property
    def ready(self) -> bool:
        return self._run is None or self._run.done

    def write(self, offset: int, data: bytes) -> int:
        try:
            if self._run and not self._run.done:
                raise OSError(errno.EBUSY, "the run before it has not ended")
            self._request = _request(self._program, data)
            self._forget()
            self._run = _begin(self._program, self._request)
            self._end, self._origin = offset + len(data), None
            self._run.join(_PATIENCE)
            if self._run.done:
                self._result()
        except (Refused, OSError) as error:
            self._forget()
            raise self._refuse(error) from error
        return len(data)

    def _refuse(self, error: Exception) -> OSError:
        return self._file.refuse(self._program, "write", error)

    def _result(self) -> bytes:
        """The result of the run, which has ended. Raises OSError."""
        assert self._run
        text = _shown(self._program, self._request, self._run.result())
        self._file.subject.context.runs[self._program.info.id] = text
        return text

    def read(self, offset: int, size: int) -> bytes | None:
        if self._run and not self._run.done:
            return None
        if self._run is None:
            text = self._file.last()
        else:
            try:
                text = self._result()
            except OSError as error:
                self._forget()
                raise self._refuse(error) from error
        if self._origin is None or offset < self._origin:
            self._origin = self._end if offset == self._end else 0
        return text[offset - self._origin :][:size]

    def truncate(self, size: int) -> None:
        """As when it is opened."""

    def _forget(self) -> None:
        if self._run:
            self._run.leave()
        self._run, self._origin = None, 0

    def close(self) -> None:
        self._forget()
        self._program.close()


@dataclass(frozen=True, slots=True)
class _Request:
    """What to run a program on."""

    data: bytes
    context: bytes
    numbers: Mapping[str, int]


def _begin(program: Program, request: _Request) -> Task[Outcome]:
    """Run a program. It takes as long as it does, and the kernel cannot be interrupted."""
    if not _free.acquire(blocking=False):
        raise OSError(errno.EBUSY, "too many programs are being run: try again")
    held = Program(os.dup(program.fd))

    def work() -> Outcome:
        try:
            with held:
                return held.run(request.data, request.context, **request.numbers)
        finally:
            _free.release()

    try:
        return Task(work)
    except OSError:
        _free.release()
        raise


def _request(program: Program, data: bytes) -> _Request:
    """What is asked for by a write: bytes, or a JSON object that has them in hexadecimal, as
    `{"data_in": "00…", "ctx_in": "…", "repeat": 1000}`. Raises `Refused`."""
    if data.lstrip().startswith(b"{") and data.isascii() and data.decode().strip().isprintable():
        return _from_json(data.decode())
    if names.name_of(names.PROGRAM_TYPE, program.info.type) in _ON_CONTEXT:
        return _Request(b"", data, {})
    return _Request(data, b"", {})


def _from_json(text: str) -> _Request:
    try:
        given: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise Refused(f"this is no JSON: {error.msg}", error.pos) from None
    unknown = given.keys() - {*_NUMBERS, *_BYTES}
    if unknown:
        known = ", ".join((*_BYTES, *_NUMBERS))
        raise Refused(f"expected {known}, got {sorted(unknown)[0]!r}", text.find(min(unknown)))
    data, context = (_from_hex(text, given, name) for name in _BYTES)
    numbers = {name: given[name] for name in _NUMBERS if name in given}
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 32:
            raise Refused(f"{name}: expected a number of 32 bits", text.find(name))
    return _Request(data, context, numbers)


def _from_hex(text: str, given: Mapping[str, Any], name: str) -> bytes:
    try:
        return bytes.fromhex(given.get(name, ""))
    except (TypeError, ValueError):
        raise Refused(f"{name}: expected hexadecimal digits", text.find(name)) from None


def _shown(program: Program, request: _Request, outcome: Outcome) -> bytes:
    result: Info = {"retval": outcome.retval}
    if names.name_of(names.PROGRAM_TYPE, program.info.type) == "xdp":
        result["action"] = names.name_of(_XDP_ACTION, outcome.retval)
    result["duration_ns"] = outcome.duration
    if request.data:
        result["data_out"] = outcome.data.hex()
    if request.context:
        result["ctx_out"] = outcome.context.hex()
    return f"{json.dumps(result)}\n".encode()
