"""cgroup_array: slots that are set to cgroups.

The kernel does not tell what is in them. So those are shown that were set in this mount, and as
long as it lasts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.cgroups import open_cgroup
from fusefs.bpf.credentials import Caller, acting_as
from fusefs.bpf.map import Existence, Map
from fusefs.text.names import to_name
from fusefs.tree.node import Node, refusal
from fusefs.tree.slots import LinkedMap
from fusefs.tree.targets import place_of


class CgroupArray(LinkedMap):
    """A symbolic link to the directory of a cgroup for each slot; `ln -s` sets one."""

    def text(self, value: bytes) -> str:
        return os.fsdecode(value)

    def check(self, bpf_map: Map, target: str, caller: Caller) -> None:
        with acting_as(caller):
            os.close(open_cgroup(place_of(self.place.context, self.base, target)))

    def look(self, bpf_map: Map, key: bytes) -> bytes:
        known = self.place.context.cgroups.get((bpf_map.info.id, key))
        if known is None:
            raise refusal(errno.ENOENT)
        path, inode = known
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            cgroup = open_cgroup(path)
            try:
                if os.fstat(cgroup).st_ino == inode:
                    return os.fsencode(path)
            finally:
                os.close(cgroup)
        return os.fsencode(f"{path} (deleted)")  # as in /proc/PID/exe

    def nodes(self) -> Iterator[tuple[str, Node] | None]:
        with self.open() as bpf_map:
            map_id = bpf_map.info.id
        known = sorted(key for of, key in self.place.context.cgroups if of == map_id)
        return ((to_name(self.view.key, key), self.node(key)) for key in known)

    def set(
        self, bpf_map: Map, key: bytes, target: str, existence: Existence, caller: Caller
    ) -> None:
        path = place_of(self.place.context, self.base, target)
        with acting_as(caller):
            cgroup = open_cgroup(path)
        try:
            bpf_map.update(key, cgroup.to_bytes(4, sys.byteorder))
            path, inode = os.readlink(f"/proc/self/fd/{cgroup}"), os.fstat(cgroup).st_ino
        finally:
            os.close(cgroup)
        self.place.context.cgroups[bpf_map.info.id, key] = path, inode

    def insert(
        self, bpf_map: Map, key: bytes, value: bytes, flags: RenameFlags, caller: Caller
    ) -> None:
        self.set(bpf_map, key, os.fsdecode(value), Existence.ANY, caller)

    def delete(self, bpf_map: Map, key: bytes) -> None:
        known = self.place.context.cgroups
        try:
            super().delete(bpf_map, key)
        except FileNotFoundError:
            known.pop((bpf_map.info.id, key), None)  # somebody else has emptied it
            raise
        known.pop((bpf_map.info.id, key), None)
