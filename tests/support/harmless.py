"""All that the kernel tells of objects: what looking at them must not change.

It is asked with bpf(2), never through the mount.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from fusefs.bpf import syscall
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.object import Object, buffer
from fusefs.bpf.program import Program
from support.links import iterator, loaded

_ITERATORS: dict[type[Object], str] = {Map: "of_maps", Program: "of_programs", Link: "of_links"}

# What the kernel tells of an object, by what that is.
Told = dict[str, object]


@dataclass
class Watched:
    """Objects, held by descriptors of ours, and what the kernel tells of them. `keys` are those of
    maps that do not list theirs, by the type of the map."""

    objects: dict[str, Object]
    keys: dict[MapType, bytes]
    stack: ExitStack
    _counts: dict[type[Object], Link] = field(default_factory=dict)

    def state(self) -> dict[str, Told]:
        """What the kernel tells of each: its information, contents and positions, and how many
        references there are."""
        counts = {kind: dict(self._counted(kind)) for kind in _ITERATORS}
        return {
            name: {
                **self._told(each),
                "references": counts[type(each)][each.info.id],
            }
            for name, each in self.objects.items()
        }

    def _told(self, each: Object) -> Told:
        told: Told = {"info": _information(each)}
        if isinstance(each, Map):
            told["fdinfo"] = _without_memory(each)
            told.update(_contents(each, self.keys))
        return told

    def _counted(self, kind: type[Object]) -> Iterator[tuple[int, str]]:
        """The id of each object of a kind, and its references."""
        if kind not in self._counts:
            programs = self.stack.enter_context(loaded("references"))
            program = self.stack.enter_context(programs.program(_ITERATORS[kind]))
            self._counts[kind] = self.stack.enter_context(iterator(program))
        with os.fdopen(self._counts[kind].iterate(), "rb") as told:
            for line in told.read().decode().splitlines():
                number, _, references = line.partition(" ")
                yield int(number), references


def _information(each: Object) -> bytes:
    """What BPF_OBJ_GET_INFO_BY_FD gives without buffers of ours."""
    room = buffer(512)
    asked = syscall.InfoArguments(each.fd, 512, ctypes.addressof(room))
    syscall.bpf(syscall.Command.OBJ_GET_INFO_BY_FD, asked)
    return bytes(room)


def _without_memory(each: Map) -> list[str]:
    """What /proc tells of its descriptor, but for its memory, which the kernel counts lazily."""
    with open(f"/proc/self/fdinfo/{each.fd}") as told:
        return [line for line in told if not line.startswith(("memlock", "ino"))]


def _contents(each: Map, keys: dict[MapType, bytes]) -> Told:
    kind = MapType(each.info.type)
    if kind in (MapType.RINGBUF, MapType.USER_RINGBUF):
        return {"positions": [_position(each, page) for page in range(2)]}
    known = [keys[kind]] if kind in keys else _keys(each)
    return {"entries": [(key, _value(each, key)) for key in known]}


def _position(each: Map, page: int) -> bytes:
    """Where the consumer (page 0) or the producer (page 1) of a ring is."""
    with mmap.mmap(each.fd, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=page * mmap.PAGESIZE) as it:
        return it[:8]


def _keys(each: Map) -> Iterator[bytes]:
    """Each key, as far as this type lists them."""
    key = None
    with suppress(OSError):
        while (key := each.next_key(key)) is not None:
            yield key


def _value(each: Map, key: bytes) -> bytes | str:
    try:
        return each.lookup(key)
    except OSError as error:  # an empty slot, or one of a type that tells nothing
        return errno.errorcode.get(error.errno or 0, str(error.errno))
