"""Work in threads of their own, and waiting for it."""

from __future__ import annotations

import _thread
import gc
import os
import select
import threading
from collections.abc import Iterator

import pytest
from support.waiting import eventually

from fusefs.bpf.task import Task


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a task waits for; it is let through at the end."""
    event = threading.Event()
    yield event
    event.set()


def readable(fd: int) -> bool:
    """Whether a descriptor can be read now."""
    return bool(select.select([fd], [], [], 0)[0])


def descriptors() -> set[str]:
    """The descriptors that this process has, without those that an earlier test forgot."""
    gc.collect()
    return set(os.listdir("/proc/self/fd"))


def test_it_tells_of_its_end(gate: threading.Event) -> None:
    task = Task(lambda: gate.wait() and 5)
    assert not task.done and not readable(task.ended)
    gate.set()
    assert select.select([task.ended], [], [], 5)[0]
    eventually("it is done", lambda: task.done)
    assert task.result() == task.result() == 5
    assert readable(task.ended)  # for all who wait
    task.leave()


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    def work() -> None:
        raise FileNotFoundError(2, "gone")

    task = Task(work)
    task.join()
    assert task.done and readable(task.ended)
    with pytest.raises(FileNotFoundError, match="gone"):
        task.result()
    task.leave()


def test_those_who_watch_it_are_told_although_it_was_left(gate: threading.Event) -> None:
    task = Task(gate.wait)
    watched = [task.watch() for _ in range(3)]
    task.leave()
    late = task.watch()
    fds = [fd for fd in (*watched, late) if fd is not None]
    assert len(fds) == 4 and not any(map(readable, fds))
    gate.set()
    task.join()
    assert all(map(readable, fds))
    assert task.watch() is None
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("early", [True, False])
def test_nothing_is_left_open(early: bool) -> None:
    before = descriptors()
    gates = [threading.Event() for _ in range(10)]
    tasks = [Task(gate.wait) for gate in gates]
    assert len(descriptors()) == len(before) + 10
    if early:
        for task in tasks:
            task.leave()
    for gate in gates:
        gate.set()
    for task in tasks:
        task.join()
        if not early:
            task.leave()
    assert descriptors() == before


def test_where_there_can_be_no_other_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()

    def start(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", start)
    with pytest.raises(BlockingIOError):  # EAGAIN
        Task(int)
    assert descriptors() == before
