"""Links: attachments of programs, what the kernel tells of them, and changing them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Self

from fusefs.bpf import syscall
from fusefs.bpf.link_fields import PARTS, VARIANTS, Part
from fusefs.bpf.object import Object, buffer
from fusefs.bpf.program import Program
from fusefs.bpf.syscall import Command

# A number, a string, or an array of numbers.
Detail = int | str | list[int]

_UNION = 240  # bytes, and more than it has today
_TEXT = 4096  # no string is longer: PATH_MAX, linux/limits.h
# What fdinfo says again under another name.
_SAID = frozenset({"name", "type", "config", "prio", "kprobe_cnt", "uprobe_cnt"})


class LinkInfo(ctypes.Structure):
    """`struct bpf_link_info`: what all links have; then a union by type, kept as bytes."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("_padding", ctypes.c_uint32),
        ("by_type", ctypes.c_uint8 * _UNION),
    )


class Link(Object):
    """An open link."""

    kind = "link"
    by_id = Command.LINK_GET_FD_BY_ID
    next_id = Command.LINK_GET_NEXT_ID

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.renew()

    def renew(self) -> None:
        """Ask the kernel for `info` anew: program and target may be others by now."""
        self.info = self.fill(LinkInfo())

    def details(self) -> dict[str, Detail]:
        """What this type of link has of its own, by the kernel's names, as far as the kernel tells
        it: strings and arrays that it hides or does not have are left out, and so are numbers that
        it is too old to know. Empty for a type that is not known here; `info` is new after it.
        Raises OSError."""
        self.renew()
        part = PARTS.get(self.info.type)
        if part is None:
            return {}
        details = self._part(part)
        first = next(iter(details.values()), 0)
        variant = None if isinstance(first, list) else VARIANTS.get((self.info.type, first))
        return details | self._part(variant) if variant else details

    def _part(self, part: Part) -> dict[str, Detail]:
        """Ask again, with room for strings and arrays; numbers are all ones before. Those that the
        kernel has left so, and had left 0 when they were 0 before, it did not write."""
        told = part.unpack(bytes(self.info.by_type))
        unwritten = part.unpack(b"\xff" * _UNION)
        given, rooms = _with_room(part, told, unwritten)
        info = LinkInfo()
        # A kernel refuses what is set behind the structure that it knows.
        known = max(self._filled - LinkInfo.by_type.offset, 0)
        union = part.pack(given)[:known]
        ctypes.memmove(ctypes.addressof(info) + LinkInfo.by_type.offset, union, len(union))
        found = part.unpack(bytes(self.fill(info).by_type))
        details: dict[str, Detail] = {}
        for name in part.names:
            if name in part.texts:
                details[name] = rooms[name].value.decode("utf-8", "replace")
            elif name in part.arrays:
                length = min(found[part.arrays[name]], len(rooms[name]) // 8)
                details[name] = [*memoryview(rooms[name]).cast("B").cast("Q")[:length]]
            elif name in part.plain and (found[name] != unwritten[name] or told[name] != 0):
                details[name] = found[name]
            elif name in part.arrays.values():
                details[name] = told[name]
        return {name: detail for name, detail in details.items() if _is_told(detail)}

    def fdinfo(self) -> dict[str, str]:
        """What /proc/self/fdinfo tells of the link; of a type that is known here, without what the
        details tell, and without the table of all places that has no colon."""
        told = super().fdinfo()
        if self.info.type not in PARTS:
            return told
        return {name: text for name, text in told.items() if text and name not in _SAID}

    def update(self, program: Program) -> None:
        """Have it run another program, from one event to the next without a gap. Raises OSError:
        EINVAL when the type of link does not allow that or the program does not fit, ENOLINK when
        it is detached (BPF_LINK_UPDATE, link_update in kernel/bpf/syscall.c)."""
        arguments = syscall.LinkUpdateArguments(link_fd=self.fd, new_prog_fd=program.fd)
        syscall.bpf(Command.LINK_UPDATE, arguments)

    def detach(self) -> None:
        """Detach it from what it is attached to, for good; it stays as long as something refers to
        it. Raises OSError: EOPNOTSUPP when the type of link does not allow that."""
        syscall.bpf(Command.LINK_DETACH, syscall.LinkDetachArguments(link_fd=self.fd))

    @classmethod
    def create(cls, program: Program, attach_type: int, target: int = 0) -> Self:
        """Attach a program, by `enum bpf_attach_type`, to what the descriptor or the index of an
        interface `target` means to that; an iterator needs none. Raises OSError."""
        arguments = syscall.LinkArguments(
            prog_fd=program.fd, target_fd=target, attach_type=attach_type
        )
        return cls(syscall.bpf(Command.LINK_CREATE, arguments))

    def iterate(self) -> int:
        """A descriptor to read what the program of an iterator writes: each is one run of its own.
        Raises OSError: EINVAL when the link is no iterator."""
        return syscall.bpf(Command.ITER_CREATE, syscall.IterCreateArguments(link_fd=self.fd))


_Rooms = dict[str, "ctypes.Array[ctypes.c_char]"]


def _with_room(
    part: Part, told: Mapping[str, int], unwritten: Mapping[str, int]
) -> tuple[dict[str, int], _Rooms]:
    """The fields to ask with, and the memory that they are the addresses of."""
    given = {name: unwritten[name] if name in part.plain else told[name] for name in part.names}
    rooms: _Rooms = {}
    for name, length in part.texts.items():
        rooms[name] = buffer(_TEXT)
        given[length] = _TEXT
    for name, length in part.arrays.items():
        rooms[name] = buffer(8 * told[length])
    for name, room in rooms.items():
        # A length of 0 goes with an address of 0, or the kernel refuses both.
        given[name] = ctypes.addressof(room) if len(room) > 1 else 0
    return given, rooms


def _is_told(detail: Detail) -> bool:
    """Whether a string or array has something in it. Arrays of zeros are addresses that are hidden
    (kptr_restrict in proc(5)), or cookies that nobody gave."""
    return any(detail) if isinstance(detail, list) else detail != ""
