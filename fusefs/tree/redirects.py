"""Entries that packets are redirected to: the interfaces of a devmap, the CPUs of a cpumap."""

from __future__ import annotations

import errno
import sys

from fusefs.bpf.map import Map
from fusefs.bpf.program import Program
from fusefs.text.errors import Refused
from fusefs.tree.entries import Entry, KeyedMap, KeyNode
from fusefs.tree.node import Opening, refusal

_WORD = 4  # bytes in each half of a value


class RedirectEntry(Entry):
    """An interface or the queue of a CPU, and a program for what comes there: an object.

    The program is an id when it is read, and a descriptor to the kernel when it is set.
    """

    __slots__ = ()

    def update(self, bpf_map: Map, value: bytes, opening: Opening) -> None:
        target, program = value[:_WORD], int.from_bytes(value[_WORD:], sys.byteorder)
        if not any(target):
            raise Refused("0 would remove the entry: rm does that")
        if not program:
            super().update(bpf_map, value, opening)
            return
        # A descriptor of a program that is not pinned is only for root to have.
        if opening.caller.uid != 0:
            raise refusal(errno.EPERM, "only root can name a program by its id")
        try:
            opened = Program.from_id(program)
        except FileNotFoundError:
            raise Refused(f"prog_id: there is no program with the id {program}") from None
        with opened:
            descriptor = opened.fd.to_bytes(_WORD, sys.byteorder)
            try:
                super().update(bpf_map, target + descriptor, opening)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                reason = "an XDP program made for this kind of map (SEC xdp/devmap or xdp/cpumap)"
                raise Refused(f"the kernel refuses it; prog_id has to be {reason}") from None


class RedirectMap(KeyedMap):
    """devmap, devmap_hash, cpumap."""

    def node(self, key: bytes, name: str) -> KeyNode:
        return RedirectEntry(self.subject, self.view, key, name)
