"""A real, filled map of every type that the kernel can make."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program
from support.af_xdp import xdp_socket
from support.cgroups import cgroup
from support.maps import ARRAYS, HASHES, NO_PREALLOC, make_map, types, u32, u64
from support.network import compile_program
from support.perf import open_event
from support.running import run_raw
from support.shell import checked, run

MMAPABLE = 1 << 10  # BPF_F_MMAPABLE


_objects = tempfile.TemporaryDirectory(prefix="bpf-fusefs-test-")  # removed at the end of all tests


@functools.cache
def _compiled(name: str) -> Path:
    return compile_program(name, Path(_objects.name))


@functools.cache
def _congestion() -> Path:
    """A congestion control, under a name that others who run these tests do not use."""
    compiled = _compiled("congestion")
    name = b"fusefs_%04d" % (os.getpid() % 10_000)
    compiled.write_bytes(compiled.read_bytes().replace(b"fusefs_test\0", name + b"\0"))
    return compiled


def _registered() -> set[int]:
    """The ids of all struct_ops maps that are registered."""
    return {told["id"] for told in json.loads(checked("bpftool", "-j", "struct_ops", "list"))}


@dataclass
class Workshop:
    """Makes samples in a bpffs; what they need lives as long as `stack`."""

    bpffs: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def sample(self, kind: MapType) -> Map:
        """A map of this type, with something in it."""
        made = _MAKERS[kind](self, kind)
        self.stack.callback(made.close)
        return made

    # Each of these makes a map of one type or of some that are alike.

    def keyed(self, kind: MapType) -> Map:
        made = make_map(kind, max_entries=3 if kind in ARRAYS else 64)
        for number in range(3):
            made.update(u32(number), u64(100 + number) * (possible_cpus() if made.per_cpu else 1))
        return made

    def trie(self, kind: MapType) -> Map:
        made = make_map(kind, key=8, value=8, flags=NO_PREALLOC)
        for length, value in ((8, 100), (16, 101)):
            made.update(u32(length) + bytes([10, 1 if length > 8 else 0, 0, 0]), u64(value))
        return made

    def of_maps(self, kind: MapType) -> Map:
        inner = self.stack.enter_context(make_map(MapType.ARRAY, max_entries=2))
        made = Map.create(kind, key_size=4, value_size=4, max_entries=4, inner=inner)
        made.update(u32(1), u32(inner.fd))
        return made

    def of_programs(self, kind: MapType) -> Map:
        made = _bare(kind)
        made.update(u32(1), u32(self.program("fill").fd))
        return made

    def redirecting(self, kind: MapType) -> Map:
        made = _bare(kind, value_size=8)
        made.update(u32(1), struct.pack("=II", 64 if kind == MapType.CPUMAP else 1, 0))
        return made

    def of_sockets(self, kind: MapType) -> Map:
        made = _bare(kind, value_size=8)
        made.update(u32(1), u64(self.listener(reuse=kind == MapType.REUSEPORT_SOCKARRAY).fileno()))
        return made

    def of_xdp_sockets(self, kind: MapType) -> Map:
        made = _bare(kind)
        made.update(u32(1), u32(self.stack.enter_context(xdp_socket()).fileno()))
        return made

    def of_cgroups(self, kind: MapType) -> Map:
        made = _bare(kind)
        made.update(u32(1), u32(self.cgroup_fd()))
        return made

    def keyless(self, kind: MapType) -> Map:
        made = Map.create(kind, key_size=0, value_size=4, max_entries=4)
        for number in (5, 6):
            made.update(b"", u32(number))
        return made

    def storage(self, kind: MapType) -> Map:
        known = types()
        made = Map.create(
            kind, key_size=4, value_size=8, max_entries=0, flags=NO_PREALLOC,
            btf=known.btf, key_type=known.ids["s32"], value_type=known.ids["u64"],
        )  # fmt: skip
        made.update(u32(self.live_thing(kind)), u64(7))
        return made

    def live_thing(self, kind: MapType) -> int:
        """A descriptor of what is a key in a storage."""
        match kind:
            case MapType.SK_STORAGE:
                return self.listener().fileno()
            case MapType.CGRP_STORAGE:
                return self.cgroup_fd()
            case MapType.TASK_STORAGE:
                fd = os.pidfd_open(os.getpid())
            case _:
                fd = os.open(__file__, os.O_RDONLY)
        self.stack.callback(os.close, fd)
        return fd

    def filled_by_a_program(self, kind: MapType) -> Map:
        made = self.loaded_map(kind.name.lower())
        run_raw(self.program("fill"))
        return made

    def of_a_cgroup(self, kind: MapType) -> Map:
        """Attaching makes the entry."""
        made = self.loaded_map(kind.name.lower())
        path = self.stack.enter_context(cgroup(kind.name.lower()))
        self.program("count")
        command = ["bpftool", "cgroup", "attach", path, "egress", "pinned", self.loaded / "count"]
        checked(*map(str, command))
        return made

    def struct_ops(self, kind: MapType) -> Map:
        before = _registered()
        checked("bpftool", "struct_ops", "register", _congestion())
        map_id = max(_registered() - before)
        self.stack.callback(run, ["bpftool", "struct_ops", "unregister", "id", str(map_id)])
        return Map.from_id(map_id)

    def arena(self, kind: MapType) -> Map:
        return Map.create(kind, key_size=0, value_size=0, max_entries=4, flags=MMAPABLE)

    def of_events(self, kind: MapType) -> Map:
        made = _bare(kind)
        fd = open_event()
        self.stack.callback(os.close, fd)
        made.update(u32(0), u32(fd))
        return made

    # What they need.

    @functools.cached_property
    def loaded(self) -> Path:
        """Where the programs of fill.bpf.c are pinned; their maps are in `maps` beside it."""
        programs = self.bpffs / "programs"
        programs.mkdir()
        (self.bpffs / "maps").mkdir()
        checked(
            "bpftool", "prog", "loadall", _compiled("fill"), programs,
            "pinmaps", self.bpffs / "maps",
        )  # fmt: skip
        return programs

    def program(self, name: str) -> Program:
        """One of those programs."""
        directory = Directory(str(self.loaded))
        opened = directory.open_pin(name, directory.stat(name).st_ino)
        assert isinstance(opened, Program)
        return self.stack.enter_context(opened)

    def loaded_map(self, name: str) -> Map:
        """One of their maps."""
        directory = Directory(str(self.loaded.with_name("maps")))
        opened = directory.open_pin(name, directory.stat(name).st_ino)
        assert isinstance(opened, Map)
        return opened

    def listener(self, *, reuse: bool = False) -> socket.socket:
        """A TCP socket that listens on the loopback interface."""
        made = self.stack.enter_context(socket.socket())
        if reuse:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("127.0.0.1", 0))
        made.listen()
        return made

    def another_cgroup(self) -> contextlib.AbstractContextManager[Path]:
        """A cgroup beside those of the samples."""
        return cgroup("another")

    def cgroup_fd(self) -> int:
        """A descriptor of a cgroup of one's own."""
        path = self.stack.enter_context(cgroup("sample"))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.stack.callback(os.close, fd)
        return fd


def _bare(kind: MapType, value_size: int = 4) -> Map:
    return Map.create(kind, key_size=4, value_size=value_size, max_entries=4, name="sample")


_MAKERS: dict[MapType, Callable[[Workshop, MapType], Map]] = {
    **dict.fromkeys(HASHES + ARRAYS, Workshop.keyed),
    MapType.LPM_TRIE: Workshop.trie,
    **dict.fromkeys((MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS), Workshop.of_maps),
    MapType.PROG_ARRAY: Workshop.of_programs,
    MapType.PERF_EVENT_ARRAY: Workshop.of_events,
    MapType.STACK_TRACE: Workshop.filled_by_a_program,
    MapType.RINGBUF: Workshop.filled_by_a_program,
    MapType.USER_RINGBUF: Workshop.filled_by_a_program,
    MapType.CGROUP_ARRAY: Workshop.of_cgroups,
    MapType.XSKMAP: Workshop.of_xdp_sockets,
    **dict.fromkeys((MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP), Workshop.redirecting),
    **dict.fromkeys(
        (MapType.SOCKMAP, MapType.SOCKHASH, MapType.REUSEPORT_SOCKARRAY), Workshop.of_sockets
    ),
    **dict.fromkeys((MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE), Workshop.of_a_cgroup),
    **dict.fromkeys((MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER), Workshop.keyless),
    **dict.fromkeys(
        (MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE),
        Workshop.storage,
    ),
    MapType.STRUCT_OPS: Workshop.struct_ops,
    MapType.ARENA: Workshop.arena,
}


@contextlib.contextmanager
def workshop(bpffs: Path) -> Iterator[Workshop]:
    """Makes samples until it ends; programs and their maps are pinned in `bpffs`."""
    made = Workshop(bpffs)
    with made.stack:
        yield made
