"""Running programs as often as wanted, without an event that they wait for; and what goes on beside
a test."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from fusefs.bpf import syscall
from fusefs.bpf.object import buffer
from fusefs.bpf.program import Program
from support.waiting import eventually

_PACKET = buffer(64)


def run(program: Program, times: int = 1) -> int:
    """Run a program that sees packets, so many times; what it returned last."""
    arguments = syscall.RunArguments(
        prog_fd=program.fd,
        data_size_in=len(_PACKET),
        data_in=ctypes.addressof(_PACKET),
        repeat=times,
    )
    syscall.bpf(syscall.Command.PROG_TEST_RUN, arguments)
    result: int = arguments.retval
    return result


def run_raw(program: Program) -> int:
    """Run a program for a raw tracepoint, without a context; what it returned."""
    arguments = syscall.RunArguments(prog_fd=program.fd)
    syscall.bpf(syscall.Command.PROG_TEST_RUN, arguments)
    return ctypes.c_int32(arguments.retval).value


class Turns:
    """How often something has been done, and whether it goes on."""

    def __init__(self) -> None:
        self.count = 0
        self.ended = threading.Event()
        self.work: Future[None]

    def more(self, turns: int = 1) -> None:
        """Wait until it has been done so many times more."""
        goal = self.count + turns
        eventually("it goes on", lambda: self.work.done() or self.count >= goal, 10)
        if self.work.done():
            self.work.result()


@contextlib.contextmanager
def repeating(turn: Callable[[], object]) -> Iterator[Turns]:
    """Something that is done again and again, in a thread of its own; once so far, at least."""
    turns = Turns()

    def work() -> None:
        while not turns.ended.is_set():
            turn()
            turns.count += 1

    with ThreadPoolExecutor(1) as pool:
        turns.work = pool.submit(work)
        try:
            turns.more()
            yield turns
        finally:
            turns.ended.set()
            turns.work.result()


def running(program: Program, times: int = 1000) -> contextlib.AbstractContextManager[Turns]:
    """A program that runs all the time, on another CPU if there is one; `times` in each turn."""
    return repeating(lambda: run(program, times))
