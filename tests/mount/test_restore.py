"""Back up and restore: a copy of a mount, and its maps made anew from that."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.btf_strategies import Maker
from support.btf_strategies import contents as bytes_for
from support.maps import ARRAYS, HASHES, NO_PREALLOC, dump, make_map, u32, u64, value_of
from support.mounting import COMMAND, Mount, empty
from support.restoring import TOOLS, contents, copied, directory, pinned, restore, told
from support.samples import workshop
from support.shell import run

from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType

each_tool = pytest.mark.parametrize("tool", TOOLS)
MANY = 4096  # entries that an LRU may have before it throws any out


@pytest.fixture
def copies() -> Iterator[Path]:
    """A directory for copies."""
    with directory() as path:
        yield path


def maps() -> set[int]:
    """The ids of all maps of the kernel."""
    return set(Map.ids())


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
    sizes = {"key_size": key_size, "value_size": max(value.size, 1), "max_entries": most}
    with ExitStack() as stack:
        btf = None
        try:
            btf = stack.enter_context(BtfObject.load(maker.types.build()))
            made = Map.create(
                kind, **sizes, name="law", flags=flags,
                btf=btf, key_type=key.type_id, value_type=value.type_id,
            )  # fmt: skip
        except OSError:  # not what a compiler would make
            made = Map.create(kind, **sizes, name="law", flags=flags)
    values = st.lists(
        bytes_for(sizes["value_size"]).map(lambda data: data.ljust(made.stride // cpus(made), b"\0")),
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
        made.freeze()
    return made, contents(made)


def cpus(bpf_map: Map) -> int:
    """How many values an entry has."""
    return possible_cpus() if bpf_map.per_cpu else 1


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
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
