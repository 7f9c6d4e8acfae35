"""What uses what, all at once."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.holding import holding
from support.links import loaded, raw_tracepoint
from support.maps import make_map, pin, u32
from support.programs import load
from support.waiting import eventually

from fusefs.bpf import syscall
from fusefs.bpf.holders import Holder
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program
from fusefs.bpf.survey import MapFacts, Snapshot, Survey
from fusefs.bpf.task import Task

LONG = 3600.0


def taken(survey: Survey, age: float = 0) -> Snapshot:
    """The snapshot as of now, or of `age` seconds ago."""
    for awaited in survey.renew(age):
        if awaited is not None:
            time.sleep(0)
    return survey.last


def of_maps(inner: Map) -> Map:
    """A map for maps like `inner`."""
    kind = MapType.HASH_OF_MAPS
    return Map.create(kind, key_size=4, value_size=4, max_entries=4, inner=inner)


def test_what_uses_what() -> None:
    with (
        loaded("tail_call") as called,
        called.map("table") as table,
        called.program("caller") as caller,
        called.program("first") as first,
        make_map(MapType.ARRAY, max_entries=2, name="inner") as inner,
        of_maps(inner) as outer,
        loaded() as traced,
        traced.program("on_raw_tracepoint") as program,
        raw_tracepoint(program, "sys_enter", 1) as one,
        raw_tracepoint(program, "sys_enter", 2) as other,
    ):
        table.update(u32(2), u32(first.fd))
        for slot in (1, 3):  # twice the same
            outer.update(u32(slot), u32(inner.fd))
        snapshot = taken(Survey())
        assert snapshot.maps[inner.info.id] == MapFacts(
            MapType.ARRAY, "inner", inner.info.btf_id, 2
        )
        assert snapshot.programs[caller.info.id].name == "caller"
        assert snapshot.programs[caller.info.id].map_ids == (table.info.id,)
        assert snapshot.users[table.info.id] == [caller.info.id]
        assert snapshot.slots[table.info.id] == [first.info.id]
        assert snapshot.slots[outer.info.id] == [inner.info.id]
        assert inner.info.id not in snapshot.slots
        assert (snapshot.target(table.info.id), snapshot.target(outer.info.id)) == (Program, Map)
        assert snapshot.target(inner.info.id) is None
        assert snapshot.tables(Program, first.info.id) == [table.info.id]
        assert snapshot.tables(Map, inner.info.id) == [outer.info.id]
        assert snapshot.tables(Map, first.info.id) == snapshot.tables(Program, caller.info.id) == []
        assert snapshot.links[one.info.id].program_id == program.info.id
        assert snapshot.runners[program.info.id] == [one.info.id, other.info.id]


def test_pins_and_holders(bpffs: Path) -> None:
    with make_map() as made, holding(made) as process:
        pin(bpffs / "pin", made)
        snapshot = taken(Survey())
        assert snapshot.pins["map", made.info.id] == [f"{bpffs}/pin"]
        assert snapshot.holders
        assert snapshot.holders["map", made.info.id] == [Holder(process.pid, "holder")]


# How old it may be.


def test_what_is_new_is_seen_at_once() -> None:
    survey = Survey()
    first = taken(survey)
    assert eventually("nobody else makes objects", lambda: taken(survey, LONG) is survey.last)
    with make_map() as made:
        assert made.info.id not in first.maps
        assert made.info.id in taken(survey, LONG).maps


def test_what_is_gone_is_seen_when_it_is_old() -> None:
    survey = Survey()
    with make_map() as made:
        map_id = made.info.id
        assert map_id in taken(survey).maps
    eventually("it is gone", lambda: map_id not in taken(survey).maps)


def test_what_is_known_to_be_old_is_taken_anew() -> None:
    survey = Survey()
    last = taken(survey, LONG)
    survey.forget()
    assert taken(survey, LONG) is not last


def test_what_changes_while_it_is_taken(bpffs: Path) -> None:
    survey = Survey()
    with make_map() as made:
        pin(bpffs / "pin", made)
        renewal = survey.renew(0)
        while next(renewal) is None:  # all but the holders is known by then
            pass
        (bpffs / "pin").unlink()
        survey.forget()
        for _ in renewal:
            time.sleep(0)
        assert survey.last.pins["map", made.info.id]
        assert ("map", made.info.id) not in taken(survey, LONG).pins


# Several at once.


def test_those_who_come_at_once_all_learn_of_holders() -> None:
    survey = Survey()
    with make_map() as made, holding(made) as process:
        waiting = [survey.renew(0) for _ in range(5)]
        # Each has begun to wait for the processes, before the first of them goes on.
        for renewal in waiting:
            while (awaited := next(renewal, 0)) is None:
                pass
            assert awaited or survey.last.holders
        for renewal in waiting:
            for _ in renewal:
                time.sleep(0)
            assert survey.last.holders
            assert survey.last.holders["map", made.info.id] == [Holder(process.pid, "holder")]


def test_one_that_is_left_spoils_nothing() -> None:
    survey = Survey()
    with make_map() as made, holding(made) as process:
        taken(Survey())  # what is opened once stays
        before = descriptors()
        renewal = survey.renew(0)
        while next(renewal) is None:
            pass
        del renewal
        holders = taken(survey).holders
        assert holders
        assert holders["map", made.info.id] == [Holder(process.pid, "holder")]
        eventually("no descriptor is left", lambda: descriptors() <= before)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Looking through processes that hang.


class Hanging:
    """In place of what looks through processes."""

    def __init__(self) -> None:
        self.begun = 0
        self.reader, self.writer = os.pipe()

    def __call__(self) -> dict[tuple[str, int], list[Holder]]:
        self.begun += 1
        os.read(self.reader, 1)
        return {}


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """It hangs as long as the test lasts, or until something is written."""
    made = Hanging()
    monkeypatch.setattr("fusefs.bpf.survey.find_holders", made)
    try:
        yield made
    finally:
        os.write(made.writer, bytes(8))


def test_what_hangs_is_not_waited_for_again(hanging: Hanging) -> None:
    survey = Survey()
    began = time.monotonic()
    assert taken(survey).holders is None
    assert time.monotonic() - began < 1
    with make_map() as made:
        began = time.monotonic()
        snapshot = taken(survey)
        assert time.monotonic() - began < 1
        assert made.info.id in snapshot.maps
        assert snapshot.holders is None
    assert hanging.begun == 1
    os.write(hanging.writer, b"xx")  # what was found when it hung is old
    with make_map():
        eventually("it is known again", lambda: _renewed(survey).holders is not None)


def _renewed(survey: Survey) -> Snapshot:
    survey.forget()
    return taken(survey)


def test_at_once_waits_for_nothing_that_hangs(hanging: Hanging) -> None:
    survey = Survey()
    began = time.monotonic()
    survey.renew_now(0)
    survey.renew_now(0)
    assert time.monotonic() - began < 1
    assert hanging.begun <= 1


def test_at_once_with_thousands_of_descriptors() -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        task = Task(lambda: 1)
        assert task.ended > 1024
        eventually("it is done", lambda: task.done)
        task.leave()
        for _ in range(20):  # one of them does not take too long
            Survey().renew_now(0)


# Rights.


@pytest.fixture
def linked() -> Iterator[Link]:
    """A link, so that there is one of each kind of object."""
    with (
        loaded() as made,
        made.program("on_raw_tracepoint") as program,
        raw_tracepoint(program, "sys_enter", 1) as link,
    ):
        yield link


@pytest.fixture(params=["MAP_GET_NEXT_ID", "PROG_GET_NEXT_ID", "LINK_GET_NEXT_ID",
                        "MAP_GET_FD_BY_ID", "LINK_GET_FD_BY_ID"])  # fmt: skip
def refused(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, linked: Link
) -> Iterator[Callable[[], None]]:
    """A command that this process may not use, until this is called."""
    bpf, wanted = syscall.bpf, syscall.Command[request.param]

    def without(command: syscall.Command, *arguments: object) -> int:
        if command == wanted:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return bpf(command, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(syscall, "bpf", without)
    yield monkeypatch.undo


def test_without_the_right_to_look(refused: Callable[[], None]) -> None:
    with load() as program, make_map():
        survey = Survey()
        taken(survey)
        assert not survey.allowed
        refused()
        assert program.info.id in taken(survey).programs
        assert survey.allowed
