"""Running programs as often as wanted, without an event that they wait for."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import threading
from collections.abc import Iterator
from typing import cast

from fusefs.bpf import syscall
from fusefs.bpf.object import buffer
from fusefs.bpf.program import Program

_PACKET = buffer(64)


class _Command(enum.IntEnum):
    """A call that the file system does not need."""

    PROG_TEST_RUN = 10


class _RunArguments(ctypes.Structure):
    """BPF_PROG_TEST_RUN, as far as its first context."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
    )


def run(program: Program, times: int = 1) -> int:
    """Run a program that sees packets, so many times; what it returned last."""
    arguments = _RunArguments(
        prog_fd=program.fd,
        data_size_in=len(_PACKET),
        data_in=ctypes.addressof(_PACKET),
        repeat=times,
    )
    syscall.bpf(cast(syscall.Command, _Command.PROG_TEST_RUN), arguments)
    result: int = arguments.retval
    return result


def run_raw(program: Program) -> int:
    """Run a program for a raw tracepoint, without a context; what it returned."""
    arguments = _RunArguments(prog_fd=program.fd)
    syscall.bpf(cast(syscall.Command, _Command.PROG_TEST_RUN), arguments)
    return ctypes.c_int32(arguments.retval).value


class Runs:
    """How often a program has been run."""

    def __init__(self) -> None:
        self.count = 0
        self.started = threading.Event()
        self.ended = threading.Event()


@contextlib.contextmanager
def running(program: Program, times: int = 1000) -> Iterator[Runs]:
    """A program that runs all the time, on another CPU if there is one; `times` in each call."""
    runs = Runs()

    def work() -> None:
        while not runs.ended.is_set():
            run(program, times)
            runs.count += times
            runs.started.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert runs.started.wait(10)
        yield runs
    finally:
        runs.ended.set()
        thread.join()
