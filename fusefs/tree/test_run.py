"""`test_run`: running a program on what is written, and reading what it gave."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from fusefs.bpf.credentials import Caller
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.bpf.task import Task
from fusefs.text.errors import Incomplete, Refused
from fusefs.tree.files import ObjectFile
from fusefs.tree.node import Attributes, Change, Handle, Opening
from fusefs.tree.run_request import begin, parsed

# A write waits for a run for so many seconds, and is then done; what takes longer is waited for by
# those who read. In the first of these others wait, too: most runs take no longer.
_PATIENCE, _AT_ONCE = 0.2, 0.002
# No packet is longer, be it in hexadecimal.
_LONGEST = 1 << 20


class TestRun(ObjectFile):
    """What is written to it is what the program is run on, once. Reading gives the result: of the
    run of this open file, else of the last one. It is root's: what runs has the rights of this
    process, and what it gave may be another's packet."""

    __slots__ = ()
    __test__ = False  # no test of pytest's

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & 0o666

    @property
    def roots(self) -> bool:
        return True

    def attributes(self) -> Attributes:
        attributes = self.basics(self.subject.status())
        with self.subject.open() as obj:
            run = self.last(obj)
        if run and run.done:
            with contextlib.suppress(OSError):
                attributes.size = len(run.result())
        return attributes

    def last(self, program: Object) -> Task[bytes] | None:
        """The last run; None before the first."""
        return self.subject.context.runs.get(program.info.id)

    def ran(self, program: Object, run: Task[bytes]) -> None:
        """Note the last run."""
        self.subject.context.runs[program.info.id] = run

    def stop(self, program: Object) -> None:
        """End the last run, if it goes on, and forget it then."""
        run = self.subject.context.running.pop(program.info.id, None)
        if run and not run.done:
            run.interrupt()
            if self.last(program) is run:
                self.forget(program)

    def begun(self, program: Object, run: Task[bytes]) -> None:
        """Note the run that goes on; the one before it ends."""
        self.stop(program)
        self.subject.context.running[program.info.id] = run

    def forget(self, program: Object) -> None:
        """Forget the last run."""
        self.subject.context.runs.pop(program.info.id, None)

    def change(self, change: Change, caller: Caller) -> None:
        """`>` truncates it first: what runs ends."""
        if change.size == 0:
            with self.subject.open() as obj:
                self.stop(obj)

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        obj = self.subject.open()
        assert isinstance(obj, Program)  # only programs are given this file
        if flags & os.O_TRUNC:
            self.stop(obj)
        return OpenTestRun(self, obj)


class OpenTestRun(Handle):
    """An open `test_run`. The text that is read begins where the last write ended, or at 0 for who
    goes back there."""

    def __init__(self, file: TestRun, program: Program) -> None:
        self._file = file
        self._program = program
        self._own: Task[bytes] | None = None
        self._began: float | None = None  # when the run began that a write waits for
        # A run of another open file, and what tells of its end.
        self._watching: Task[bytes] | None = None
        self._watched: int | None = None
        self._request = b""  # JSON that is not yet whole
        self._is_text = False  # whether JSON was written last
        self._end = 0  # of the last write
        self._refused = False  # whether that was JSON that cannot become a request
        self._origin = 0  # where the text begins
        self._text: bytes | None = None  # None until it is read

    @property
    def held(self) -> int:
        return len(self._request) + len(self._text or b"")

    @property
    def awaited(self) -> int | None:
        return self._own.ended if self._own else self._watched

    @property
    def ready(self) -> bool:
        run = self._run
        return run is None or run.done

    @property
    def _run(self) -> Task[bytes] | None:
        """The run that is shown."""
        return self._own or self._file.last(self._program)

    def write(self, offset: int, data: bytes) -> int | None:
        if self._began is None:
            self._forget()
            try:
                if not self._take(offset, data):
                    return len(data)
            except (Refused, OSError) as error:
                raise self._refuse(error, data.decode("utf-8", "replace")) from error
        return len(data) if self._ended() else None

    def _take(self, offset: int, data: bytes) -> bool:
        """Take what is written; whether a run has begun. Raises `Refused` and OSError."""
        goes_on = offset == self._end > 0
        if goes_on and self._refused:
            raise Refused("what was written before it was refused")
        self._end = offset + len(data)
        if goes_on and self._is_text and not self._request and not data.strip():
            return False  # the newline after a request
        given = self._request + data if goes_on else data
        self._request, self._is_text, self._refused = b"", False, False
        if len(given) > _LONGEST:
            raise Refused(f"what is to be run on is longer than {_LONGEST} bytes")
        try:
            request = parsed(self._program, given)
        except Incomplete:
            self._request, self._is_text = given, True
            return False
        except Refused:
            self._refused = given.lstrip().startswith(b"{")
            raise
        self._file.stop(self._program)
        self._own = begin(self._program, request)
        self._file.begun(self._program, self._own)
        self._is_text = request.is_text
        self._began = time.monotonic()
        self._own.join(_AT_ONCE)
        return True

    def _ended(self) -> bool:
        """Whether a write has to wait no longer for its run. Raises OSError when that failed."""
        assert self._own and self._began is not None  # it has begun
        if not self._own.done and time.monotonic() - self._began < _PATIENCE:
            return False
        self._began = None
        if self._own.done:
            self._result(self._own)
        self._file.ran(self._program, self._own)
        return True

    def flush(self) -> Iterator[None]:
        if self._request:
            error = Refused("the request is not whole", len(self._request.rstrip()))
            text, self._request = self._request.decode("utf-8", "replace"), b""
            raise self._refuse(error, text)
        return iter(())

    def _refuse(self, error: Exception, text: str = "") -> OSError:
        return self._file.refuse(self._program, "write", error, text)

    def read(self, offset: int, size: int) -> bytes | None:
        if self._text is None or offset < self._origin:
            self._origin, self._text = self._end if offset == self._end else 0, None
        if self._text is None or offset == self._origin:
            run = self._run
            if run and not run.done and self._watches(run):
                return None
            self._text = self._result(run) if run else b""
        return self._text[offset - self._origin :][:size]

    def _watches(self, run: Task[bytes]) -> bool:
        """Whether a run goes on, whose end is now awaited."""
        if run is not self._own and run is not self._watching:
            self._unwatch()
            self._watched, self._watching = run.watch(), run
        return self.awaited is not None

    def _result(self, run: Task[bytes]) -> bytes:
        """What a run gave, which has ended. Raises OSError."""
        try:
            return run.result()
        except OSError as error:
            self._forget()
            if self._file.last(self._program) is run:
                self._file.forget(self._program)
            raise self._refuse(error) from error

    def truncate(self, size: int) -> None:
        """As when it is opened."""
        if size == 0:
            self._file.stop(self._program)

    def _forget(self) -> None:
        if self._own:
            self._own.leave()
        self._own, self._text = None, None

    def _unwatch(self) -> None:
        if self._watched is not None:
            os.close(self._watched)
        self._watched = self._watching = None

    def close(self) -> None:
        """Others may yet read what its run gives."""
        self._forget()
        self._unwatch()
        self._program.close()
