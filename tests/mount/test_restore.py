"""Back up and restore: a copy of a mount, and its maps made anew from that."""

from __future__ import annotations

import contextlib
import os
import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.btf_strategies import Maker
from support.btf_strategies import contents as bytes_for
from support.maps import ARRAYS, HASHES, NO_PREALLOC, u32
from support.mounting import Mount, empty
from support.restoring import TOOLS, contents, copied, directory, pinned, restore, told
from support.samples import workshop

from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType

RDONLY_PROG = 1 << 7  # BPF_F_RDONLY_PROG
each_tool = pytest.mark.parametrize("tool", TOOLS)
MANY = 4096  # entries that an LRU may have before it throws any out


# What is copied out comes back.


@st.composite
def typed_maps(draw: st.DrawFn) -> tuple[Map, dict[bytes, bytes]]:
    """A map of some type, with types that the kernel takes or none, and what is to be in it."""
    maker = Maker(draw)
    key, value = maker.any(2), maker.any(2)
    kind = draw(st.sampled_from([*HASHES, *ARRAYS, MapType.LPM_TRIE]))
    trie = kind == MapType.LPM_TRIE
    key_size = 4 if kind in ARRAYS else 8 if trie else max(key.size, 1)
    most = 3 if kind in ARRAYS else MANY
    flags = NO_PREALLOC if trie or (kind == MapType.HASH and draw(st.booleans())) else 0
    frozen = draw(st.booleans())
    size = max(value.size, 1)
    make = partial(
        Map.create, kind,
        key_size=key_size, value_size=size, max_entries=most, name="law", flags=flags,
    )  # fmt: skip
    try:
        with BtfObject.load(maker.types.build()) as btf:
            made = make(btf=btf, key_type=key.type_id, value_type=value.type_id)
    except OSError:  # not what a compiler would make
        made = make()
    stride = made.stride // cpus(made)
    values = st.lists(
        bytes_for(size).map(lambda data: data.ljust(stride, b"\0")),
        min_size=cpus(made), max_size=cpus(made),
    ).map(b"".join)  # fmt: skip
    keys: st.SearchStrategy[bytes] = bytes_for(key_size)
    if kind in ARRAYS:
        keys = st.integers(0, most - 1).map(u32)
    elif trie:
        keys = st.tuples(st.integers(0, 32), st.binary(min_size=4, max_size=4)).map(
            lambda pair: u32(pair[0]) + pair[1]
        )
    entries = draw(st.dictionaries(keys, values, max_size=5))
    for one, other in entries.items():
        made.update(one, other)
    if frozen:
        with contextlib.suppress(OSError):  # the kernel freezes none with a timer
            made.freeze()
    return made, contents(made)


def cpus(bpf_map: Map) -> int:
    """How many values an entry has."""
    return possible_cpus() if bpf_map.per_cpu else 1


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), tool=st.sampled_from(sorted(TOOLS)))
def test_what_is_copied_out_comes_back(mounted: Mount, data: st.DataObject, tool: str) -> None:
    made = data.draw(st.lists(typed_maps(), min_size=1, max_size=3))
    (mounted.source / "law").mkdir()
    before = {}
    with ExitStack() as stack:
        stack.callback(empty, mounted)
        copy = stack.enter_context(directory())
        for number, (bpf_map, entries) in enumerate(made):
            with mounted.pin(f"law/{number}", bpf_map):
                before[f"law/{number}"] = told(mounted, f"law/{number}"), entries
        copied(mounted, "law", tool, copy)
        empty(mounted)
        result = restore(copy, mounted.source)
        assert (result.code, result.stderr) == (0, ""), result
        assert result.stdout.count(": made, ") == len(made)
        for name, (words, entries) in before.items():
            with pinned(mounted.source / name) as again:
                assert contents(again) == entries
            assert told(mounted, name) == words


# Every type of map: its contents come back, or what is left out is told.

VALUES = [*HASHES, *ARRAYS, MapType.LPM_TRIE, MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP]
SOCKETS = "sockets are put in by their owners"
RECORDS = "records are for "
EMPTY = {
    MapType.PROG_ARRAY: "the programs in its slots are for their loader to put in",
    MapType.PERF_EVENT_ARRAY: "what was in it could not be read",
    MapType.XSKMAP: "what was in it could not be read",
    MapType.ARENA: "what was in it could not be read",
    MapType.STACK_TRACE: "stacks are put in by programs",
    MapType.CGROUP_ARRAY: "its slots are to be set again, with ln -s",
    MapType.SOCKMAP: SOCKETS,
    MapType.SOCKHASH: SOCKETS,
    MapType.REUSEPORT_SOCKARRAY: SOCKETS,
    MapType.CGROUP_STORAGE: "its entries come when programs are attached to cgroups",
    MapType.PERCPU_CGROUP_STORAGE: "its entries come when programs are attached to cgroups",
    MapType.QUEUE: "more than its head could not be read",
    MapType.STACK: "more than its head could not be read",
    MapType.SK_STORAGE: "its values belonged to sockets",
    MapType.INODE_STORAGE: "its values belonged to inodes",
    MapType.TASK_STORAGE: "its values belonged to threads",
    MapType.CGRP_STORAGE: "its values belonged to cgroups",
    MapType.BLOOM_FILTER: "a filter does not tell what was added",
    MapType.RINGBUF: RECORDS,
    MapType.USER_RINGBUF: RECORDS,
}
SLOTS = [MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS]


@pytest.mark.parametrize("kind", MapType, ids=lambda kind: kind.name.lower())
def test_every_type_of_map(mounted: Mount, tmp_path: Path, kind: MapType) -> None:
    with workshop(mounted.source) as shop:
        sample = mounted.pin("sample", shop.sample(kind))
        words, before = told(mounted, "sample"), contents(sample) if kind in VALUES else {}
        assert before or kind not in VALUES
        copied(mounted, "sample", "rsync", tmp_path)
        (mounted.path / "sample").rmdir()
        result = restore(tmp_path, mounted.source)
        if kind == MapType.STRUCT_OPS:
            assert result.code == 1
            assert "a struct_ops map is its loader's to make" in result.stderr
            assert "sample" not in os.listdir(mounted.source)
            return
        if kind in SLOTS:
            assert "made, 0 of 1 entry" in result.stdout
            assert re.search(r"1[0]*: left out: map \d+, which was in it, is not in", result.stderr)
        else:
            assert (result.code, result.stderr) == (0, "")
            assert EMPTY.get(kind, "entries" if len(before) > 1 else "1 entry") in result.stdout
        if kind in VALUES:
            assert contents(pinned(mounted.source / "sample")) == before
        if kind not in (*SLOTS, MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE):
            assert told(mounted, "sample") == words
        (mounted.path / "sample").rmdir()
