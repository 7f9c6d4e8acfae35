"""Maps that hold global variables: of a program that was loaded, or made without any."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program
from support.mounting import Mount
from support.shell import checked

MMAPABLE = 1 << 10  # BPF_F_MMAPABLE


def section_map(
    name: str = ".bss",
    variables: Sequence[str] = ("first", "second"),
    *,
    room: int = 0,
    locked: bool = False,
    map_type: MapType = MapType.ARRAY,
    max_entries: int = 1,
    flags: int = MMAPABLE,
) -> Map:
    """A section of u32 variables; with `room` bytes before the last, and a lock behind it."""
    types = BtfBuilder()
    u32 = types.integer("unsigned int", 4)
    placed = []
    size = 0
    for number, variable in enumerate(variables):
        size += room if number == len(variables) - 1 else 0
        placed.append((types.variable(variable, u32), size, 4))
        size += 4
    if locked:
        lock = types.struct("bpf_spin_lock", 4, [("val", u32, 0)])
        placed.append((types.variable("lock", lock), size, 4))
        size += 4
    section = types.data_section(name, size, placed)
    keyless = map_type == MapType.ARRAY and max_entries == 1
    with BtfObject.load(types.build()) as btf:
        return Map.create(
            map_type,
            key_size=4,
            value_size=size,
            max_entries=max_entries,
            name="section",
            flags=flags,
            btf=btf,
            key_type=0 if keyless else u32,
            value_type=section,
        )


@dataclass(frozen=True)
class Loaded:
    """A program that is pinned as `program`, and its maps in `maps`; bpftool takes `_` for the dots
    of their names."""

    mount: Mount
    program: Program

    def variable(self, section: str, name: str) -> Path:
        """The file of a variable."""
        return self.mount.path / "maps" / section / "vars" / name

    def map(self, section: str) -> Map:
        """The map of a section."""
        opened = _open(self.mount.source / "maps" / section)
        assert isinstance(opened, Map)
        return opened


def load(mount: Mount, compiled: Path, kind: str = "socket") -> Loaded:
    """Load a program, of the type that bpftool calls `kind`, and pin it with its maps."""
    program, maps = mount.source / "program", mount.source / "maps"
    os.mkdir(maps)
    checked("bpftool", "prog", "load", compiled, program, "type", kind, "pinmaps", maps)
    opened = _open(program)
    assert isinstance(opened, Program)
    return Loaded(mount, opened)


def _open(path: Path) -> object:
    directory = Directory(str(path.parent))
    return directory.open_pin(path.name, directory.stat(path.name).st_ino)
