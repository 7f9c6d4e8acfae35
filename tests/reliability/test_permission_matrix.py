"""No user can do more to a pin through the mount than bpf(2) and bpffs let them do to it."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.cgroups import cgroup
from support.links import attached, loaded
from support.maps import make_map, pin, u32, u64
from support.mounting import Mount, mounted, mounted_bpffs
from support.people import (
    CONTAINED,
    GROUP,
    ORDINARY,
    OWNER,
    ROOT,
    ROOTS,
    Person,
    User,
    people,
)
from support.pin_operations import (
    BLOOM,
    DEVICES,
    OF_ALL,
    OF_MAPS,
    PROGRAM,
    PUSHES,
    QUEUE,
    RING,
    VARIABLES,
    link,
    slots,
    table,
)
from support.rights import Case, Comparison, Operation
from support.samples import Workshop, workshop
from support.sections import section_map
from support.soaking import Figure, passing

from fusefs.bpf.map import Map, MapType
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.tree.targets import path_by_id

# Each class of users has each combination of rights in one of these, and in each but the first
# there is a class for each combination.
MODES = (0o000, 0o642, 0o426, 0o264)
ALL_MODES = (
    *MODES, 0o400, 0o200, 0o600, 0o440, 0o460, 0o660, 0o604, 0o606, 0o644, 0o666, 0o622, 0o755,
)  # fmt: skip


@pytest.fixture(scope="module")
def everybody() -> Iterator[dict[User, Person]]:
    with people([*ORDINARY, *ROOTS]) as made:
        yield made


@pytest.fixture(scope="module")
def source() -> Iterator[Path]:
    with mounted_bpffs() as path:
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="module")
def mount(everybody: object, source: Path) -> Iterator[Mount]:
    with mounted(source, ["-o", "allow_other"]) as made:
        yield made


@dataclass
class Pinned:
    """A pin of an object, with an owner, a group and a mode; `fill` has the object be as it was."""

    mount: Mount
    kind: str
    obj: Object
    mode: int
    fill: Callable[[], None]
    serial: int = 0

    def __post_init__(self) -> None:
        self._pin()

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.mode:o}_{self.serial}"

    def paths(self) -> tuple[Path, Path]:
        return self.mount.source / self.name, self.mount.path / self.name

    def _pin(self) -> None:
        path, _shown = self.paths()
        pin(path, self.obj)
        os.chown(path, OWNER, GROUP)
        path.chmod(self.mode)

    def renew(self) -> None:
        """It has another name, of which the kernel remembers nothing."""
        path, _shown = self.paths()
        path.unlink(missing_ok=True)
        self.serial += 1
        self.fill()
        self._pin()


def rights(case: Case) -> str:
    """What the mode of a pin gives the class of its users that somebody is in."""
    user = case.user
    shift = 6 if user.uid == OWNER else 3 if GROUP in (user.gid, *user.groups) else 0
    bits = case.mode >> shift
    return ("r" if bits & 4 else "") + ("w" if bits & 2 else "")


TOLD_TO_ALL = frozenset(
    {"read info", "read info.json", "read types.h", "read frozen", "read stats", "list it",
     "size of info", "size of types.h", "size of stats", "attribute of an entry"}
)  # fmt: skip
# Why the mount allows less than the kernel, and where.
LESS: dict[str, Callable[[Case], bool]] = {
    "what the mode lets nobody do, root may not do either, as in sysfs; chmod helps": lambda case: (
        case.user in (ROOT, CONTAINED) and not (case.mode & 0o444 and case.mode & 0o222)
    ),
    "the kernel tells what it knows of an object to all who have a descriptor, though it be to "
    "write alone; a file that only some who may not read it could read has no mode": lambda case: (
        rights(case) == "w" and case.operation in TOLD_TO_ALL
    ),
    "what runs has the rights of the file system, and shows what ran before": lambda case: (
        case.operation in {"read test_run", "write test_run"} and case.user is not ROOT
    ),
    "they lead to .by-id/, which is root's; `info` has the ids": lambda case: (
        case.operation == "list maps" and case.user is not ROOT
    ),
}


class Compared:
    """Compares kinds of objects, one after the other. In the first turn some are tried with each
    combination of rights, and the others with one; in each of those that follow, all with another
    mode."""

    thorough: ClassVar = frozenset({"HASH", "program", "link"})

    def __init__(self, mount: Mount, everybody: dict[User, Person]) -> None:
        self.mount = mount
        self.found = Comparison()
        self._everybody = everybody
        self._turn = 0
        self._kinds = 0

    def begin(self, turn: int) -> None:
        """Another turn."""
        self._turn, self._kinds = turn, 0

    def _modes(self, kind: str) -> Sequence[int]:
        if self._turn:
            return [ALL_MODES[(self._turn + self._kinds) % len(ALL_MODES)]]
        return MODES if kind in self.thorough else [MODES[1 + self._kinds % 3]]

    def _people(self, kind: str) -> list[Person]:
        all_of_them = [*self._everybody.values()]
        if self._turn or kind in self.thorough:
            return all_of_them
        # Who is root in another user namespace has no other rights than a stranger.
        return [person for person in all_of_them if not person.user.mapped]

    def one(
        self,
        kind: str,
        obj: Object,
        operations: Sequence[Operation],
        fill: Callable[[], None] = lambda: None,
    ) -> None:
        """Do everything to pins of an object; `fill` has it be as it was."""
        self._kinds += 1
        for mode in self._modes(kind):
            fill()
            pinned = Pinned(self.mount, kind, obj, mode, fill)
            for person in self._people(kind):
                for operation in [*OF_ALL, *operations]:
                    self.found.compare(kind, pinned, operation, person)
            pinned.paths()[0].unlink()


def filled(made: Map, *present: bytes, absent: Sequence[bytes] = ()) -> Callable[[], None]:
    """Gives a map the entries that it has now, and removes others."""
    values = [(key, made.lookup(key)) for key in present]

    def fill() -> None:
        for key, value in values:
            made.update(key, value)
        for key in absent:
            with contextlib.suppress(FileNotFoundError):
                made.delete(key)

    return fill


def of_values(compared: Compared) -> None:
    """Maps with entries."""
    for kind in (MapType.HASH, MapType.ARRAY, MapType.PERCPU_HASH):
        with make_map(kind) as made:
            made.update(u32(1), u64(5) * (made.stride // 8))
            fill = filled(made, u32(1), absent=[] if made.indexed else [u32(2), u32(3)])
            compared.one(kind.name, made, OF_MAPS + table("1", "2", "7", "1"), fill)


def offer(path: Path, obj: Object) -> None:
    """Pin something for everybody."""
    path.unlink(missing_ok=True)
    pin(path, obj)
    path.chmod(0o666)


class Samples:
    """Maps that are made once."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self.sample = functools.cache(shop.sample)

    def program(self, name: str) -> Program:
        """A program, anew."""
        return Program(os.dup(self._shop.program(name).fd))


def of_elements(compared: Compared, shop: Samples) -> None:
    """Maps without keys, and rings."""
    for kind in (MapType.QUEUE, MapType.STACK):
        made = shop.sample(kind)

        def refill(made: Map = made) -> None:
            with contextlib.suppress(FileNotFoundError):
                while True:
                    made.pop()
            for number in (5, 6):
                made.update(b"", u32(number))

        compared.one(kind.name, made, OF_MAPS + QUEUE, refill)
    compared.one("BLOOM_FILTER", shop.sample(MapType.BLOOM_FILTER), OF_MAPS + BLOOM)
    compared.one("RINGBUF", shop.sample(MapType.RINGBUF), OF_MAPS + RING)
    compared.one("USER_RINGBUF", shop.sample(MapType.USER_RINGBUF), OF_MAPS + PUSHES)
    with section_map(variables=("first", "second")) as section:
        section.store([(0, u32(5))])
        fill = filled(section, u32(0))
        compared.one("section", section, OF_MAPS + VARIABLES, fill)


def of_slots(compared: Compared, shop: Samples) -> None:
    """Maps whose entries are objects, into which everybody may put one."""
    source = compared.mount.source
    for kind, other in (
        (MapType.HASH_OF_MAPS, make_map(MapType.ARRAY, key=4, value=8, max_entries=2, name="")),
        (MapType.PROG_ARRAY, shop.program("fill")),
    ):
        made = shop.sample(kind)
        with other:
            name = f"into_{kind.name}"
            offer(source / name, other)
            numbers = u32(1), u32(2)
            held = made.lookup(numbers[0])
            known = Map if isinstance(other, Map) else Program
            present = int.from_bytes(held, sys.byteorder)

            def fill(made: Map = made, known: Any = known, present: int = present) -> None:
                with known.from_id(present) as obj:
                    made.update(u32(1), u32(obj.fd))
                with contextlib.suppress(FileNotFoundError):
                    made.delete(u32(2))

            shown = "../../" + name
            by_id = "/".join(("../..", *path_by_id(known, present)))
            compared.one(kind.name, made, OF_MAPS + slots(source / name, shown, by_id), fill)
    made = shop.sample(MapType.DEVMAP)
    compared.one("DEVMAP", made, OF_MAPS + DEVICES, filled(made, u32(1), absent=[u32(2)]))


def of_code(compared: Compared) -> None:
    """Programs and links."""
    source = compared.mount.source
    with loaded() as programs, cgroup() as path:
        with programs.program("on_packet") as program:
            compared.one("program", program, PROGRAM)
        with attached(programs, path) as one, programs.program("on_egress_too") as other:
            offer(source / "other", other)
            compared.one("link", one, link(source / "other", "../other"))


@pytest.mark.soak(short=1)
def test_nobody_can_do_more_to_a_pin_than_the_kernel_lets_them(
    mount: Mount, everybody: dict[User, Person], span: float, figure: Figure
) -> None:
    compared = Compared(mount, everybody)
    with workshop(mount.source) as shop:
        samples = Samples(shop)
        for turn in passing(span):
            compared.begin(turn)
            of_values(compared)
            of_elements(compared, samples)
            of_slots(compared, samples)
            of_code(compared)
    compared.found.check(LESS)
    compared.found.tell(figure)
