"""Maps that were made with special flags: the modes of their files say what is possible."""

from __future__ import annotations

import json
import os
import stat

import pytest
from support.maps import dump, make_map, u32, u64
from support.mounting import Mount
from support.sections import section_map
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType

NO_PREALLOC, NUMA_NODE, RDONLY, WRONLY, ZERO_SEED = 1, 4, 8, 16, 64
RDONLY_PROG, WRONLY_PROG, MMAPABLE, INNER_MAP = 128, 256, 1024, 4096

MADE = {
    "no_prealloc": (MapType.HASH, NO_PREALLOC),
    "numa_node": (MapType.HASH, NUMA_NODE),
    "rdonly": (MapType.HASH, RDONLY),
    "wronly": (MapType.ARRAY, WRONLY),
    "zero_seed": (MapType.HASH, ZERO_SEED),
    "rdonly_prog": (MapType.ARRAY, RDONLY_PROG),
    "wronly_prog": (MapType.HASH, WRONLY_PROG),
    "mmapable": (MapType.ARRAY, MMAPABLE),
    "inner_map": (MapType.ARRAY, INNER_MAP),
}


@pytest.mark.parametrize("name", MADE)
def test_users_may_read_and_write(mounted: Mount, name: str) -> None:
    """These flags bind the one who makes the map, or programs: a pin opens in full."""
    kind, flags = MADE[name]
    made = mounted.pin("sample", make_map(kind, max_entries=4, flags=flags))
    told = json.loads((mounted.path / "sample/info.json").read_text())["map_flags"]
    # Those that bind a descriptor are none of the map's (bpf_map_flags_retain_permanent).
    assert told == ([] if flags in (RDONLY, WRONLY) else [name])
    assert mounted.sh("echo 7 > sample/entries/1; cat sample/entries/1").stdout == "7\n"
    assert stat.S_IMODE((mounted.path / "sample/entries/1").stat().st_mode) == 0o600
    with Map.from_id(made.info.id) as own:  # the descriptor of the one who made it may not do it
        assert dump(own)[u32(1)] == u64(7)
    if kind == MapType.HASH:
        assert mounted.sh("rm sample/entries/1; ls sample/entries").stdout == ""
    assert mounted.error_log("sample") == ""


def test_a_frozen_map_can_be_read_alone(mounted: Mount) -> None:
    made = mounted.pin("sample", make_map(MapType.ARRAY, max_entries=4, flags=RDONLY_PROG))
    made.freeze()
    entry, entries = mounted.path / "sample/entries/1", mounted.path / "sample/entries"
    eventually("it has no write bit", lambda: stat.S_IMODE(entry.stat().st_mode) == 0o400)
    assert stat.S_IMODE(entries.stat().st_mode) == 0o500
    assert mounted.sh("echo 7 > sample/entries/1").stderr.endswith("Operation not permitted\n")
    assert "the map is frozen" in mounted.error_log("sample")


def test_constants_can_be_read_alone(mounted: Mount) -> None:
    mounted.pin("sample", section_map(".rodata", flags=RDONLY_PROG))
    variable = mounted.path / "sample/vars/first"
    assert stat.S_IMODE(variable.stat().st_mode) == 0o400
    with pytest.raises(PermissionError):
        os.open(variable, os.O_WRONLY)
