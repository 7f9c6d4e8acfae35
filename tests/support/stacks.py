"""Programs that ask for stacks, and stacks to run them on."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from support.network import PROGRAMS
from support.running import run_raw
from support.shell import checked


@dataclass(frozen=True)
class Stacks:
    """The programs and maps of stacks.bpf.c, pinned in two directories."""

    programs: Path
    maps: Path

    def program(self, name: str) -> Program:
        """One of the programs."""
        opened = _open(self.programs, name)
        assert isinstance(opened, Program)
        return opened

    def map(self, name: str) -> Map:
        """One of the maps."""
        opened = _open(self.maps, name)
        assert isinstance(opened, Map)
        return opened

    def run(self, name: str) -> int:
        """Run a program; the id of the stack that it has asked for."""
        with self.program(name) as program:
            number = run_raw(program)
        assert number >= 0, number
        return number

    def run_deep(self, library: Path, depth: int) -> None:
        """Run `in_the_process` on 2 ** `depth` stacks that are all different."""
        with self.program("in_the_process") as program:
            assert ctypes.CDLL(str(library)).run_deep(program.fd, depth) == 0


@contextlib.contextmanager
def loaded(bpffs: Path, compiled: Path) -> Iterator[Stacks]:
    """Load the programs, and pin them in `bpffs`."""
    made = Stacks(bpffs / "programs", bpffs / "maps")
    for directory in (made.programs, made.maps):
        directory.mkdir()
    checked("bpftool", "prog", "loadall", compiled, made.programs, "pinmaps", made.maps)
    yield made


def compile_library(directory: Path) -> Path:
    """Compile deep.c, whose stacks can be followed by their frame pointers."""
    result = directory / "deep.so"
    flags = ("-shared", "-fPIC", "-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
    checked("clang", *flags, PROGRAMS / "deep.c", "-o", result)
    return result


def _open(directory: Path, name: str) -> Object:
    opened = Directory(str(directory))
    return opened.open_pin(name, opened.stat(name).st_ino)
