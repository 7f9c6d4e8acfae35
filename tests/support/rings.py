"""Rings, and the programs of rings.bpf.c that write to them and drain them."""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.btf import DataSection, Variable
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.bpf.ring_buffer import RingBuffer
from support.faults import absent_page
from support.network import compile_program
from support.running import run, run_raw
from support.shell import checked
from support.waiting import eventually

SMALL, FAST, LARGE = 4096, 1 << 16, 1 << 20  # sizes of the rings
NO_WAKEUP = 1  # BPF_RB_NO_WAKEUP
HELD = struct.pack("=Q", 0x7777777777777777)  # the record of `hold`
_objects = tempfile.TemporaryDirectory(prefix="bpf-fusefs-test-")  # removed at the end of all tests


@functools.cache
def compiled() -> Path:
    """The object file of the programs."""
    return compile_program("rings", Path(_objects.name))


@dataclass
class Rings:
    """The programs, pinned in `programs`, and their maps in `maps`: `small`, `fast` and `large`,
    which they write, and `user`, which they drain."""

    bpffs: Path
    stack: ExitStack = field(default_factory=ExitStack)
    _opened: dict[Path, Object] = field(default_factory=dict)

    def program(self, name: str) -> Program:
        """One of the programs."""
        opened = self._open(self.bpffs / "programs" / name)
        assert isinstance(opened, Program)
        return opened

    def map(self, name: str) -> Map:
        """One of the maps."""
        opened = self._open(self.bpffs / "maps" / name)
        assert isinstance(opened, Map)
        return opened

    def _open(self, path: Path) -> Object:
        if path not in self._opened:
            directory = Directory(str(path.parent))
            opened = directory.open_pin(path.name, directory.stat(path.name).st_ino)
            self._opened[path] = self.stack.enter_context(opened)
        return self._opened[path]

    @functools.cached_property
    def _variables(self) -> tuple[Map, dict[str, tuple[int, int]]]:
        """The section of the programs' variables, and the offset and size of each."""
        section = self.map("rings_bss")
        with BtfObject.from_id(section.info.btf_id) as btf_object:
            btf = btf_object.parse()
        whole = btf.type(section.info.btf_value_type_id)
        assert isinstance(whole, DataSection)
        places = {}
        for type_id, offset, size in whole.variables:
            variable = btf.type(type_id)
            assert isinstance(variable, Variable)
            places[variable.name] = offset, size
        return section, places

    def set(self, name: str, value: int | bytes) -> None:
        """Set a variable, or the start of it."""
        section, places = self._variables
        offset, size = places[name]
        data = value if isinstance(value, bytes) else value.to_bytes(size, "little")
        section.store([(offset, data)])

    def get(self, name: str) -> int:
        """The value of a variable."""
        section, places = self._variables
        return int.from_bytes(section.load(*places[name]), "little")

    def put(self, *records: bytes, ring: str = "small", flags: int = 0) -> None:
        """Have a program write records."""
        program = self.program({"small": "put", "large": "put_large"}[ring])
        self.set("flags", flags)
        for record in records:
            self.set("data", record or b"\0")
            self.set("length", len(record))
            assert run(program) == 0, "the ring is full"

    def skip(self, times: int = 1) -> None:
        """Have a program write records, and discard them."""
        for _ in range(times):
            assert run(self.program("skip")) == 0

    @contextlib.contextmanager
    def holding(self, *, discards: bool = False) -> Iterator[None]:
        """While this lasts, a record of the small ring is being written: at the end it is `HELD`,
        or discarded."""
        thread = threading.Thread(target=run_raw, args=(self.program("hold"),))
        with absent_page() as page:
            self.set("discards", discards)
            self.set("page", page.address)
            thread.start()
            try:
                eventually("it is being written", lambda: self.get("held"))
                yield
                assert self.get("held")
            finally:
                page.give()
                thread.join()

    def positions(self, ring: str = "small") -> tuple[int, int]:
        """Those of the consumer and the producer."""
        with RingBuffer(self.map(ring)) as memory:
            return memory.consumer, memory.producer

    def unread(self, ring: str = "small") -> list[bytes]:
        """What lies unread in a ring, as our own reader has it."""
        with RingBuffer(self.map(ring)) as memory:
            return [record for records in memory.unread() for record in records]

    def consume(self, count: int, ring: str = "small") -> None:
        """Consume so many records, as another consumer would."""
        with RingBuffer(self.map(ring), consuming=True) as memory:
            for _ in range(count):
                batch = memory.front(1)
                assert batch and memory.consume(batch, batch.end)


@contextlib.contextmanager
def rings(bpffs: Path) -> Iterator[Rings]:
    """The programs and their maps, pinned in `bpffs`."""
    made = Rings(bpffs)
    for name in ("programs", "maps"):
        os.mkdir(bpffs / name)
    pinned = (bpffs / "programs", "pinmaps", bpffs / "maps")
    checked("bpftool", "prog", "loadall", compiled(), *pinned)
    with made.stack:
        yield made


def check_burst(records: Sequence[bytes], first: int) -> int:
    """These are whole records of the program `burst`, each after the one before, from number
    `first` on; the number of the next."""
    for record in records:
        (number,) = struct.unpack_from("=Q", record)
        assert number == first, f"{number} comes where {first} belongs"
        assert len(record) == 16 + (number * 7 & 255)
        assert record[8:] == bytes([number % 251]) * (len(record) - 8), number
        first += 1
    return first
