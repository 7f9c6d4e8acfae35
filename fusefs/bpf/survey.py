"""What uses what: all maps, programs and links of the kernel, their pins and holders, at a time."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import select
import sys
import time
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fusefs.bpf import struct_ops
from fusefs.bpf.batch import split
from fusefs.bpf.direct import OF_SOCKETS, Direct, Linked, attached, linked
from fusefs.bpf.holders import Holders, find_holders
from fusefs.bpf.link import Link
from fusefs.bpf.link_fields import LinkType
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.object import Object
from fusefs.bpf.pins import Key, Pins
from fusefs.bpf.program import Program
from fusefs.bpf.task import Task

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
Opened = TypeVar("Opened", bound=Object)

# Tables whose values are ids: of what, and so many slots are looked at in each.
_TABLES: Mapping[int, type[Object]] = {
    MapType.ARRAY_OF_MAPS: Map,
    MapType.HASH_OF_MAPS: Map,
    MapType.PROG_ARRAY: Program,
}
# Links that have a map.
_WITH_MAPS = frozenset({LinkType.ITER, LinkType.STRUCT_OPS, LinkType.SOCKMAP})
_MOST_SLOTS = 1 << 16
# In a table that nobody pins or holds are no programs; but somebody may, out of our sight.
_MOST_SLOTS_OF_NOBODY = 1 << 12
# Others may have a turn after so many seconds.
_TURN = 0.003
# The processes are looked through for so long, in seconds; then it is not known who holds what.
_PATIENCE = 0.6
# What may be done at once, in seconds.
_AT_ONCE = 0.02
# It is repeated when it is older than that many times what it took, and no sooner.
_REPOSE = 5


@dataclass(frozen=True, slots=True)
class MapFacts:
    """A map."""

    type: int
    name: str
    btf_id: int
    max_entries: int


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """A program, and the ids of the maps that it uses."""

    type: int
    name: str
    btf_id: int
    map_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """A link; the ids of the program that it runs, and of the map that it goes through or is
    attached to: 0 for none."""

    type: int
    program_id: int
    map_id: int


@dataclass
class Snapshot:
    """All objects by their ids, and what ties them. `slots` has what is in the tables of maps and
    programs, each once, `operations` the programs of struct_ops maps, and `direct` what is attached
    without a link. `holders` is None where it is not known; `closed` is how many directories of
    bpffs could not be looked into for pins."""

    maps: dict[int, MapFacts] = field(default_factory=dict)
    programs: dict[int, ProgramFacts] = field(default_factory=dict)
    links: dict[int, LinkFacts] = field(default_factory=dict)
    slots: dict[int, list[int]] = field(default_factory=dict)
    operations: dict[int, list[int]] = field(default_factory=dict)
    direct: list[Direct] = field(default_factory=list)
    pins: dict[Key, list[str]] = field(default_factory=dict)
    closed: int = 0
    holders: Holders | None = None

    def target(self, map_id: int) -> type[Object] | None:
        """What is in the slots of a table; None for a map that is no table."""
        facts = self.maps.get(map_id)
        return _TABLES.get(facts.type) if facts else None

    @functools.cached_property
    def users(self) -> Mapping[int, list[int]]:
        """The programs that use a map, by its id."""
        return _inverse((number, facts.map_ids) for number, facts in self.programs.items())

    @functools.cached_property
    def runners(self) -> Mapping[int, list[int]]:
        """The links that run a program, by its id."""
        return _inverse((number, (facts.program_id,)) for number, facts in self.links.items())

    @functools.cached_property
    def linked(self) -> Mapping[int, list[int]]:
        """The links that go through a map or are attached to it, by its id."""
        return _inverse((number, (facts.map_id,)) for number, facts in self.links.items())

    @functools.cached_property
    def operators(self) -> Mapping[int, list[int]]:
        """The struct_ops maps that a program is in, by its id."""
        return _inverse(self.operations.items())

    def tables(self, kind: type[Object], object_id: int) -> list[int]:
        """The tables in which a map or a program is."""
        return self._tables.get((kind, object_id), [])

    @functools.cached_property
    def _tables(self) -> Mapping[tuple[type[Object] | None, int], list[int]]:
        return _inverse(
            (number, [(self.target(number), item) for item in items])
            for number, items in self.slots.items()
        )


def _inverse(pairs: Iterable[tuple[int, Iterable[K]]]) -> dict[K, list[int]]:
    """Of numbers and what each of them has: of each of that, the numbers that have it."""
    found: dict[K, list[int]] = {}
    for number, items in pairs:
        for item in dict.fromkeys(items):
            found.setdefault(item, []).append(number)
    return found


class Survey:
    """The last snapshot, and taking the next."""

    def __init__(self) -> None:
        self.last = Snapshot()
        self._pins = Pins()
        self._scan: Task[Holders] | None = None
        self._patient_until = float("-inf")  # with that scan
        self._under_way: int | None = None  # can be read when the one that is being taken is
        self._taken = float("-inf")
        self._forgotten = float("-inf")
        self._cost = 0.0
        self._long = False  # whether the last took longer than what may be done at once
        self._allowed = True

    def forget(self) -> None:
        """The last one is known to be old, and so is one that is being taken."""
        self._forgotten = time.monotonic()

    @property
    def allowed(self) -> bool:
        """Whether this process may go through all objects."""
        return self._allowed

    def renew_now(self, age: float) -> None:
        """The same as `renew`, at once, unless that takes longer than others can wait."""
        if self._long or self._under_way is not None:
            return
        until = time.monotonic() + _AT_ONCE
        for awaited in self.renew(age):
            if awaited is not None:
                poll = select.poll()  # select(2) knows only the first 1024 descriptors
                poll.register(awaited, select.POLLIN)
                poll.poll(1000 * _AT_ONCE)
            if time.monotonic() > until:
                self._long = True
                return

    def renew(self, age: float) -> Iterator[int | None]:
        """See to it that `last` is no older than `age` seconds, or not much for what it costs.

        In pieces: None where others may have a turn, or a descriptor that is worth waiting for
        until it can be read. One is taken at a time, and those who come meanwhile have it as well.
        Raises OSError.
        """
        while self._under_way is not None:
            yield self._under_way
        try:
            if self._is_fresh(time.monotonic(), age):
                self._allowed = True
                return
            self._under_way = ended = os.eventfd(0)
            try:
                yield from self._take_anew()
            finally:
                self._under_way = None
                os.eventfd_write(ended, 1)
                os.close(ended)
            self._allowed = True
        except PermissionError:
            self._allowed = False

    def _take_anew(self) -> Iterator[int | None]:
        began = turn = time.monotonic()
        snapshot, cost = Snapshot(), 0.0
        for _ in self._take(snapshot):
            spent = time.monotonic() - turn
            if spent > _TURN:
                cost += spent
                yield None
                turn = time.monotonic()
        asked = time.monotonic()
        yield from self._find_holders(snapshot)
        cost += time.monotonic() - asked
        self._long = cost > _AT_ONCE
        self.last, self._taken, self._cost = snapshot, began, cost

    def _is_fresh(self, now: float, age: float) -> bool:
        """Whether the last one is good enough. Raises PermissionError when this process may not go
        through all objects."""
        outdated = self._outdated()
        if outdated or self._taken <= self._forgotten:
            return False
        return now - self._taken < max(age, _REPOSE * self._cost)

    def _find_holders(self, snapshot: Snapshot) -> Iterator[int]:
        """Look through processes. It is not known who holds what where that takes too long."""
        try:
            # One that has ended found what was then; one that goes on may have been begun by a
            # survey that was given up, or hang: then there is no use in another.
            if self._scan is None or self._scan.done:
                self._scan = Task(find_holders)
                self._scan.leave()  # those who wait watch it
                self._patient_until = time.monotonic() + _PATIENCE
            scan = self._scan
            if (ended := scan.watch()) is not None:
                try:
                    while not scan.done and time.monotonic() < self._patient_until:
                        yield ended
                finally:
                    os.close(ended)
            if scan.done:
                snapshot.holders = scan.result()
        except OSError as error:
            log.debug("the holders of objects cannot be found: %s", error)

    def _find_pins(self, snapshot: Snapshot) -> Iterator[None]:
        for pin in self._pins.walk():
            if pin:
                key, path = pin
                snapshot.pins.setdefault(key, []).append(path)
            yield
        snapshot.closed = self._pins.closed

    def _take_maps(self, snapshot: Snapshot) -> Iterator[None]:
        idle = self._idle_tables(snapshot)
        snapshot.maps.update(idle)
        snapshot.slots.update((number, []) for number in idle if number in self.last.slots)
        for bpf_map in _each(Map, idle):
            info = bpf_map.info
            facts = MapFacts(info.type, _name(bpf_map), info.btf_id, info.max_entries)
            snapshot.maps[info.id] = facts
            if info.type == MapType.STRUCT_OPS:
                snapshot.operations[info.id] = struct_ops.programs(bpf_map)
            emptied = info.type == MapType.PROG_ARRAY and not self._in_use(snapshot, info.id)
            most = _MOST_SLOTS_OF_NOBODY if emptied else _MOST_SLOTS
            if info.type in _TABLES and info.max_entries <= most:
                yield from _look_into(bpf_map, snapshot.slots.setdefault(info.id, []))
            yield

    def _idle_tables(self, snapshot: Snapshot) -> dict[int, MapFacts]:
        """Tables of programs that are known, that were empty if they were looked into, and that
        nobody pins or holds: nobody can have changed them, and they are not opened again.

        When the last descriptor of one is closed, the kernel empties it slot by slot, later; and
        when that happens once more before it has begun, a reference is lost and the table is never
        freed (prog_array_map_clear in kernel/bpf/arraymap.c; seen on Linux 6.18).
        """
        return {
            number: facts
            for number in Map.ids()
            if (facts := self.last.maps.get(number))
            and facts.type == MapType.PROG_ARRAY
            and not self.last.slots.get(number)
            and self._in_use(snapshot, number) is False
        }

    def _in_use(self, snapshot: Snapshot, map_id: int) -> bool | None:
        """Whether a map is pinned, or a process had it open when it was last seen who has; None
        where neither is known."""
        key = (Map.kind, map_id)
        if key in snapshot.pins:
            return True
        return None if self.last.holders is None else key in self.last.holders

    def _outdated(self) -> bool:
        """Whether there are objects that the last one does not have."""
        kinds: tuple[tuple[type[Object], Mapping[int, object]], ...] = (
            (Map, self.last.maps),
            (Program, self.last.programs),
            (Link, self.last.links),
        )
        return any(kind.id_after(max(known, default=0)) for kind, known in kinds)

    def _take(self, snapshot: Snapshot) -> Iterator[None]:
        """Fill a snapshot, piece by piece."""
        yield from self._find_pins(snapshot)
        yield from self._take_maps(snapshot)
        for program in _each(Program):
            info, ids = program.info, tuple(program.map_ids())
            snapshot.programs[info.id] = ProgramFacts(info.type, _name(program), info.btf_id, ids)
            yield
        links: list[Linked] = []
        for link in _each(Link):
            if known := linked(link):
                links.append(known)
            map_id = link.details().get("map_id", 0) if link.info.type in _WITH_MAPS else 0
            number = map_id if isinstance(map_id, int) else 0
            facts_of_link = LinkFacts(link.info.type, link.info.prog_id, number)
            snapshot.links[link.info.id] = facts_of_link
            yield
        types = {program.type for program in snapshot.programs.values()}
        of_sockets = [number for number, m in snapshot.maps.items() if m.type in OF_SOCKETS]
        for found in attached(types, of_sockets, links):
            if found and found.program_id in snapshot.programs:
                snapshot.direct.append(found)
            yield


def _name(obj: Map | Program) -> str:
    name: bytes = obj.info.name
    return name.decode("utf-8", "replace")


def _each(kind: type[Opened], but: Container[int] = ()) -> Iterator[Opened]:
    """All objects of a kind but some, each open for a moment."""
    for object_id in kind.ids():
        if object_id in but:
            continue
        with contextlib.suppress(FileNotFoundError), kind.from_id(object_id) as obj:
            yield obj


def _look_into(table: Map, items: list[int]) -> Iterator[None]:
    """What is in the slots of a table, each once."""
    seen: set[int] = set()
    for batch in table.batches():
        values = split(batch.values, table.stride)
        seen.update(int.from_bytes(value, sys.byteorder) for value in values)
        yield
    items += sorted(seen)
