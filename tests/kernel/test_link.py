"""Links: swapping their programs, detaching them, and running iterators."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.links import Loaded, loaded, on_cgroup, over_map, raw_tracepoint
from support.maps import pin, u32, u64
from support.waiting import eventually

from fusefs.bpf.link import Link
from fusefs.bpf.link_iterator import IteratorRun

COUNT = 2000


@pytest.fixture(scope="module")
def programs() -> Iterator[Loaded]:
    """A program for each type."""
    with loaded() as programs:
        yield programs


@pytest.fixture
def iterators() -> Iterator[Loaded]:
    """Iterators, and a map with some numbers in it."""
    with loaded("links_iterators") as programs:
        with programs.map("numbers") as numbers:
            for number in range(COUNT):
                numbers.update(u32(number), u64(3 * number))
        yield programs


def iterator_of(iterators: Loaded, name: str) -> Link:
    """An iterator over the numbers."""
    with iterators.program(name) as program, iterators.map("numbers") as numbers:
        return over_map(program, numbers)


@pytest.fixture
def to_cgroup(programs: Loaded) -> Iterator[Link]:
    """A link to a cgroup."""
    with on_cgroup(programs) as link:
        yield link


def test_a_program_is_swapped(programs: Loaded, to_cgroup: Link) -> None:
    with programs.program("on_egress_too") as other:
        assert to_cgroup.info.prog_id != other.info.id
        to_cgroup.update(other)
        to_cgroup.renew()
        assert to_cgroup.info.prog_id == other.info.id


def test_a_program_that_does_not_fit(programs: Loaded, to_cgroup: Link) -> None:
    before = to_cgroup.info.prog_id
    with programs.program("on_packet") as other, pytest.raises(OSError) as caught:
        to_cgroup.update(other)
    assert caught.value.errno == errno.EINVAL
    to_cgroup.renew()
    assert to_cgroup.info.prog_id == before


def test_a_link_is_detached(programs: Loaded, to_cgroup: Link) -> None:
    before = to_cgroup.info.prog_id
    to_cgroup.detach()
    assert to_cgroup.details()["cgroup_id"] == 0
    assert to_cgroup.info.prog_id == before
    to_cgroup.detach()  # again is no error
    with programs.program("on_egress_too") as other, pytest.raises(OSError) as caught:
        to_cgroup.update(other)
    assert caught.value.errno == errno.ENOLINK


def test_a_link_that_cannot_be_detached(programs: Loaded) -> None:
    with (
        programs.program("on_raw_tracepoint") as program,
        raw_tracepoint(program, "sys_enter", 0) as link,
    ):
        with pytest.raises(OSError) as caught:
            link.detach()
        assert caught.value.errno == errno.EOPNOTSUPP
        with pytest.raises(OSError) as caught:
            link.iterate()
        assert caught.value.errno == errno.EINVAL


# Iterators.


def read_all(run: IteratorRun, size: int = 1 << 16) -> bytes:
    """All that a run gives."""
    text = b""
    while (piece := read_some(run, size)) != b"":
        text += piece
    return text


def read_some(run: IteratorRun, size: int = 1 << 16) -> bytes:
    """What a run gives next."""
    while (piece := run.read(size)) is None:
        assert run.awaited is not None
        assert select.select([run.awaited], [], [], 10)[0]
    return piece


def threads() -> int:
    """How many threads read iterators."""
    return sum(thread.name == "iterator" for thread in threading.enumerate())


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_a_run_gives_what_the_pin_gives(iterators: Loaded, bpffs: Path, size: int) -> None:
    if size == 1:
        with iterators.map("numbers") as numbers:
            for number in range(100, COUNT):
                numbers.delete(u32(number))
    with iterator_of(iterators, "each_element") as link:
        pin(bpffs / "pin", link)
        wanted = (bpffs / "pin").read_bytes()
        assert len(wanted.splitlines()) == (100 if size == 1 else COUNT)
        with IteratorRun(link) as run:
            assert read_all(run, size) == wanted
            assert run.read(size) == b""
        with IteratorRun(link) as run:
            assert read_all(run) == wanted
    eventually("the threads have ended", lambda: threads() == 0)


def test_nothing_runs_before_it_is_read(iterators: Loaded) -> None:
    with (
        iterator_of(iterators, "each_element") as link,
        iterators.map("links_it.bss") as variables,
        IteratorRun(link) as run,
    ):
        assert run.awaited is None
        assert not run.ready
        assert variables.lookup(u32(0)) == u64(0)
        assert read_all(run)
        assert variables.lookup(u32(0)) == u64(COUNT)


def test_a_slow_reader_holds_the_program_up(iterators: Loaded) -> None:
    with iterators.map("numbers") as numbers:
        for number in range(COUNT, 20_000):
            numbers.update(u32(number), u64(0))
    with (
        iterator_of(iterators, "each_element") as link,
        iterators.map("links_it.bss") as variables,
        IteratorRun(link) as run,
    ):
        first = read_some(run, 1)
        seen: list[bytes | None] = []

        def stands() -> bool:
            seen.append(variables.lookup(u32(0)))
            return len(seen) > 5 and len(set(seen[-5:])) == 1

        eventually("the program stands still", stands)
        assert 0 < int.from_bytes(seen[-1] or b"", "little") < 20_000
        assert len((first + read_all(run)).splitlines()) == 20_000


def test_a_run_is_given_up(iterators: Loaded) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    link = iterator_of(iterators, "each_element")
    for _ in range(100):  # more than can be read at a time
        with IteratorRun(link) as run:
            read_some(run, 10)
    link.close()
    eventually("the threads have ended", lambda: threads() == 0)
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_too_many_runs(iterators: Loaded) -> None:
    with iterators.map("numbers") as numbers:
        for number in range(COUNT, 20_000):
            numbers.update(u32(number), u64(0))
    with iterator_of(iterators, "each_element") as link, contextlib.ExitStack() as stack:
        runs = [stack.enter_context(IteratorRun(link)) for _ in range(65)]
        for run in runs[:64]:
            run.read(1)
        with pytest.raises(OSError) as caught:
            runs[64].read(1)
        assert caught.value.errno == errno.EBUSY
        runs[0].close()
        eventually("one has ended", lambda: threads() < 64)
        assert read_some(runs[64], 1)
    eventually("the threads have ended", lambda: threads() == 0)


def test_an_error_is_given_and_the_run_goes_on(iterators: Loaded) -> None:
    with (
        iterator_of(iterators, "again_and_again") as link,
        iterators.map("links_it.bss") as variables,
        IteratorRun(link) as run,
    ):
        for turn in range(1, 4):
            with pytest.raises(BlockingIOError):
                read_some(run)
            assert variables.lookup(u32(0)) == u64(turn)
            assert run.awaited is None


def test_a_read_that_takes_long_holds_up_nobody(iterators: Loaded) -> None:
    with iterators.map("numbers") as numbers:
        for number in range(500, COUNT):
            numbers.delete(u32(number))
    with iterator_of(iterators, "slowly") as link, IteratorRun(link) as run:
        start = time.monotonic()
        assert run.read(1) is None
        assert time.monotonic() - start < 0.1
        assert not run.ready
        assert read_all(run) == b""
        assert time.monotonic() - start > 0.1  # it did take long
