"""Entries that packets are redirected to: the interfaces of a devmap, the CPUs of a cpumap."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.program import Program
from fusefs.text.errors import Refused
from fusefs.tree.entries import Entry, KeyedMap, KeyNode
from fusefs.tree.node import Opening, refusal

_WORD = 4  # bytes in each half of a value


_XDP = "an XDP program made for this kind of map (SEC xdp/devmap or xdp/cpumap)"
# What the kernel means by its answers (kernel/bpf/devmap.c, kernel/bpf/cpumap.c).
_REASONS = {
    errno.EINVAL: f"there is no such interface, or prog_id is not {_XDP}",
    errno.ENODEV: "this machine has no such CPU",
    errno.EOVERFLOW: "qsize is 16384 at most",
}
# A cpumap says so of a program that does not fit (__cpu_map_entry_alloc).
_UNFIT = {errno.ENOMEM: f"prog_id is not {_XDP}"}


@contextlib.contextmanager
def _taken(value: bytes, caller: Caller) -> Iterator[bytes]:
    """A value as the kernel takes it: with a descriptor of the program, where it gives an id.

    Within the block, what the kernel says is given a reason. Raises `Refused` or OSError.
    """
    target, program = value[:_WORD], int.from_bytes(value[_WORD:], sys.byteorder)
    if not any(target):
        raise Refused("0 would remove the entry: rm does that")
    try:
        if not program:
            yield value
            return
        with _opened(program, caller) as opened:
            yield target + opened.fd.to_bytes(_WORD, sys.byteorder)
    except OSError as error:
        reasons = _REASONS | (_UNFIT if program else {})
        number = error.errno or errno.EIO
        if number not in reasons:
            raise
        number, reason = errno.EINVAL if number in _UNFIT else number, reasons[number]
        raise refusal(number, f"the kernel refuses it: {reason}") from None


def _opened(program: int, caller: Caller) -> Program:
    # A descriptor of a program that is not pinned is only for root to have.
    if not caller.is_root:
        raise refusal(errno.EPERM, "only root can name a program by its id")
    try:
        return Program.from_id(program)
    except FileNotFoundError:
        raise Refused(f"prog_id: there is no program with the id {program}") from None


class RedirectEntry(Entry):
    """An interface, or the length of a CPU's queue, and a program for what comes there: an object.

    The program is an id when it is read, and a descriptor to the kernel when it is set.
    """

    __slots__ = ()

    def update(self, bpf_map: Map, value: bytes, opening: Opening) -> None:
        with _taken(value, opening.caller) as taken:
            super().update(bpf_map, taken, opening)


class RedirectMap(KeyedMap):
    """devmap, devmap_hash, cpumap."""

    def node(self, key: bytes) -> KeyNode:
        return RedirectEntry(self.subject, self.view, key)

    def insert(
        self, bpf_map: Map, key: bytes, value: bytes, flags: RenameFlags, caller: Caller
    ) -> None:
        with _taken(value, caller) as taken:
            super().insert(bpf_map, key, taken, flags, caller)
