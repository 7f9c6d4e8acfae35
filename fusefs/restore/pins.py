"""Pins anew: each map is made, filled and frozen before it is pinned, so that nobody sees half of
it, and what fails leaves nothing behind."""

from __future__ import annotations

import contextlib
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map, MapType
from fusefs.restore.contents import Filling, Inner, Outcome
from fusefs.restore.copies import INFO, Copy, Failed, Identity, Link, read, reason_of
from fusefs.restore.places import Places
from fusefs.tree.context import BY_ID
from fusefs.tree.definition import NUMA_NODE, Definition, Unmakable
from fusefs.tree.formats import Formats

_OF_MAPS = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
_NOT_OURS = {
    "program": "a program is for its loader to load",
    "link": "a link is for its loader to make",
    "": "it could not be opened when it was copied",
}
_LEFT_ALONE = Outcome("there, left alone")


@dataclass
class _Made:
    """A map of this run, what became of it, and where it is pinned, if it is."""

    id: int
    outcome: Outcome
    pin: str = ""


class Pins:
    """Makes the pins of a copy at their places."""

    def __init__(
        self, places: Places, top: Path, copies: Iterable[Copy], formats: Formats, *, force: bool
    ) -> None:
        """`top` is the directory that has the copies; with `force`, maps that are there have their
        entries set."""
        self._places = places
        self._top = top
        self._formats = formats
        self._force = force
        self._made: dict[Identity, _Made] = {}
        self._copies: defaultdict[int, list[Copy]] = defaultdict(list)  # by the id that it had
        for copy in copies:
            if copy.kind == Map.kind:
                self._copies[copy.id].append(copy)

    def restore(self, each: Copy | Link) -> Outcome:
        """Make a pin or a symbolic link anew. Raises `Failed`."""
        try:
            return self.pin(each) if isinstance(each, Copy) else self.link(each)
        except OSError as error:
            raise Failed(each.path, reason_of(error)) from None

    def link(self, link: Link) -> Outcome:
        """Make a symbolic link of bpffs anew. Raises `Failed`."""
        if self._places.status(link):
            return _LEFT_ALONE
        self._places.link(link, link.target)
        return Outcome("made, a symbolic link")

    def pin(self, copy: Copy) -> Outcome:
        """Make a pin anew. Raises `Failed`."""
        if status := self._places.status(copy):
            if not stat.S_ISREG(status.st_mode):
                raise Failed(copy.path, "what is there is no pin")
            return self._set(copy) if self._force and copy.kind == Map.kind else _LEFT_ALONE
        if copy.kind != Map.kind:
            raise Failed(copy.path, _NOT_OURS[copy.kind])
        if any("." in name for name in copy.names):
            raise Failed(copy.path, "bpffs has no names with dots")
        bpf_map, made = self._map(copy)
        with bpf_map:
            self._places.pin(copy, bpf_map)
        if made.pin:
            return Outcome(f"pinned, the same map as {made.pin}")
        made.pin = "/".join(copy.names)
        return Outcome(f"made, {made.outcome.words}", made.outcome.left_out)

    def _set(self, copy: Copy) -> Outcome:
        """Set the entries of the map that is there."""
        with self._places.open(copy) as bpf_map:
            if difference := copy.definition().difference(bpf_map):
                raise Failed(copy.path, f"another map is there: {difference}")
            filling = self._filling(copy, bpf_map)
            if not filling.takes_entries:
                return _LEFT_ALONE
            if bpf_map.frozen():
                raise Failed(copy.path, "the map that is there is frozen")
            outcome = filling.fill(self._inner_of(copy))
        return Outcome(f"set, {outcome.words}", outcome.left_out)

    def _map(self, copy: Copy) -> tuple[Map, _Made]:
        """The map of a copy: the one that was made of it or of another of its pins, or that is
        there as one of them; else made."""
        if made := self._made.get(copy.identity):
            with contextlib.suppress(FileNotFoundError):  # nothing has held it
                return Map.from_id(made.id), made
        for other in self._copies[copy.id]:
            if other.identity == copy.identity and (found := self._there(other)):
                return found, _Made(found.info.id, _LEFT_ALONE, "/".join(other.names))
        bpf_map, outcome = self._make(copy)
        made = self._made[copy.identity] = _Made(bpf_map.info.id, outcome)
        return bpf_map, made

    def _there(self, copy: Copy) -> Map | None:
        """The map that is pinned where the copy says, if it is alike."""
        status = self._places.status(copy)
        if not status or not stat.S_ISREG(status.st_mode):
            return None
        found = self._places.open(copy)
        if not copy.definition().difference(found):
            return found
        found.close()
        return None

    def _make(self, copy: Copy) -> tuple[Map, Outcome]:
        """Make a map, with all that was in it."""
        wanted = copy.definition()
        bpf_map = _empty(copy, wanted)
        try:
            filling = self._filling(copy, bpf_map)
            filling.check_types(wanted.types)
            outcome = filling.fill(self._inner_of(copy))
            if wanted.flags & NUMA_NODE:
                outcome.words += ", on NUMA node 0 (the kernel does not tell where it was)"
            if wanted.frozen:
                _freeze(copy, bpf_map)
                outcome.words += ", frozen"
        except BaseException:
            bpf_map.close()
            raise
        return bpf_map, outcome

    def _filling(self, copy: Copy, bpf_map: Map) -> Filling:
        return Filling(copy, bpf_map, self._places.root, self._formats)

    def _inner_of(self, copy: Copy) -> Inner:
        """What finds the maps for the slots of a map of maps: pins in the copy, or copies of what
        its symbolic links led to."""

        def found(number: int) -> Copy:
            pins = self._copies[number]
            if len({each.identity for each in pins}) > 1:
                raise Failed(copy.path, f"the copy has several maps that had the id {number}")
            if pins:
                return pins[0]
            beside = self._top / BY_ID / "maps" / str(number)
            path = copy.followed().get(number, beside)
            if not (path / INFO).exists():
                raise Failed(copy.path, f"map {number}, which was in it, is not in the copy")
            return read(path)

        def inner(number: int) -> Map:
            one = found(number)
            if one.definition().type in _OF_MAPS:
                raise Failed(copy.path, f"map {number} is one of maps itself")
            return self._map(one)[0]

        return inner


def _empty(copy: Copy, wanted: Definition) -> Map:
    """Make a map with nothing in it. Raises `Failed`."""
    try:
        with contextlib.ExitStack() as stack:
            btf = stack.enter_context(_loaded(copy)) if wanted.has_btf else None
            inner = stack.enter_context(_example(wanted)) if wanted.type in _OF_MAPS else None
            return wanted.make(btf, inner)
    except Unmakable as error:
        raise Failed(copy.path / INFO, str(error)) from None


def _loaded(copy: Copy) -> BtfObject:
    """The BTF of a map. Raises `Failed`."""
    try:
        return BtfObject.load(copy.blob())
    except OSError as error:
        raise Failed(copy.path / "btf", f"the kernel refuses it: {reason_of(error)}") from None


def _example(wanted: Definition) -> Map:
    """A map such as a map of maps is for. Raises `Unmakable`."""
    if wanted.inner is None:
        raise Unmakable(
            "there is no inner_map, an example of the maps that it is for: it was empty"
        )
    return wanted.inner.make()


def _freeze(copy: Copy, bpf_map: Map) -> None:
    try:
        bpf_map.freeze()
    except OSError as error:
        raise Failed(copy.path, f"cannot be frozen: {reason_of(error)}") from None
