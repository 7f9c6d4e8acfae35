"""A bpffs with something of every kind in it, its state as bpf(2) and bpffs have it, and putting
that back: for tests that do everything again and again while something fails."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from fusefs.bpf.btf import Kind, kernel_btf
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from support.cgroups import cgroup
from support.links import Attach
from support.maps import NO_PREALLOC, dump, make_map, pin, types, u32, u64, value_of
from support.programs import NOTHING, load
from support.sections import section_map
from support.storages import put

# Of which every byte of a value is the same, so that a mix of two would be seen.
WIDE = 1 << 12
# So many lines are loaded at once: more than are set in one go.
LINES = 3000
T = TypeVar("T", bound=Object)

_CGROUP_SKB, _TRACING = 8, 26
_OF_KERNEL = ("maps.debug", "progs.debug")

Cell = tuple[Hashable, ...]
State = Mapping[Cell, Hashable]


class Stage:
    """The bpffs; `maps`, `programs` and `link` are open here, and pinned by their names."""

    def __init__(self, bpffs: Path, stack: ExitStack, entries: int) -> None:
        self.bpffs = bpffs
        self._stack = stack
        self.maps = self._maps(entries)
        self.programs = {name: self._own(load(name=name)) for name in ("first", "second")}
        self._skb = {name: self._own(load(kind=_CGROUP_SKB, name=name)) for name in ("one", "two")}
        self.link = self._own(self._on_cgroup())
        self._pinned: dict[str, Object] = {
            **self.maps, **self.programs, **self._skb, "link": self.link,
        }  # fmt: skip
        if iterator := self._iterator():
            self._pinned["iterator"] = iterator
        for name, obj in self._pinned.items():
            pin(bpffs / name, obj)
        pin(bpffs / "loose", self.maps["sample"])  # another name of it, to be removed
        (bpffs / "directory").mkdir()
        (bpffs / "symlink").symlink_to("directory")
        self.start = self.state()

    def _own(self, obj: T) -> T:
        self._stack.callback(obj.close)
        return obj

    def _maps(self, entries: int) -> dict[str, Map]:
        made = {
            "sample": make_map(),
            "wide": make_map(key=4, value=WIDE),
            "lines": make_map(max_entries=2 * LINES),
            "large": make_map(max_entries=entries),
            "array": make_map(MapType.ARRAY, max_entries=4),
            "percpu": make_map(MapType.PERCPU_HASH, value="u64"),
            "section": section_map(),
            "inner": make_map(MapType.ARRAY, max_entries=4),
            "other": make_map(MapType.ARRAY, max_entries=4),
            "queue": Map.create(MapType.QUEUE, key_size=0, value_size=4, max_entries=1 << 12),
            "ring": Map.create(MapType.RINGBUF, key_size=0, value_size=0, max_entries=4096),
            "tasks": Map.create(
                MapType.TASK_STORAGE, key_size=4, value_size=8, max_entries=0, flags=NO_PREALLOC,
                btf=types().btf, key_type=types().ids["s32"], value_type=types().ids["u64"],
            ),
        }  # fmt: skip
        for obj in made.values():
            self._own(obj)
        made["outer"] = self._own(
            Map.create(
                MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=4, inner=made["inner"]
            )
        )
        made["outer"].update(u32(1), u32(made["inner"].fd))
        for key in (1, 2, 3):
            made["sample"].update(u32(key), u64(100 * key))
            made["wide"].update(u32(key), bytes([key]) * WIDE)
        made["array"].update(u32(1), u64(100))
        made["percpu"].update(u32(1), value_of(made["percpu"], 100))
        keys = b"".join(map(u32, range(entries)))
        made["large"].update_all(keys, b"".join(map(u64, range(entries))))
        keys = b"".join(map(u32, range(LINES)))
        made["lines"].update_all(keys, u64(1) * LINES)
        made["queue"].update(b"", u32(5))
        put(made["tasks"], str(os.getpid()), 100)
        return made

    def _on_cgroup(self) -> Link:
        path = self._stack.enter_context(cgroup("stage"))
        fd = os.open(path, os.O_RDONLY)
        try:
            return Link.create(self._skb["one"], Attach.CGROUP_INET_EGRESS, fd)
        finally:
            os.close(fd)

    def _iterator(self) -> Link | None:
        """One over all tasks, whose program prints nothing; None where the kernel has none."""
        btf = kernel_btf()
        function = btf.find("bpf_iter_task", Kind.FUNC) if btf else None
        if not function:
            return None
        program = Program.load(
            _TRACING, NOTHING, attach_type=Attach.TRACE_ITER, attach_btf_id=function
        )
        with program:
            return self._own(Link.create(program, Attach.TRACE_ITER))

    # What there is.

    _dumped = ("sample", "wide", "lines", "array", "percpu", "section", "outer")

    def state(self) -> State:
        """Everything that can change, each thing by itself."""
        cells: dict[Cell, Hashable] = {("link",): self._program_of_link()}
        for name in self._dumped:
            cells.update(((name, key), value) for key, value in dump(self.maps[name]).items())
        for parent, directories, files in os.walk(self.bpffs):
            for name in directories + files:
                path = Path(parent) / name
                if name not in _OF_KERNEL:
                    cells["name", str(path.relative_to(self.bpffs))] = _look(path)
        return cells

    def _program_of_link(self) -> str:
        self.link.renew()
        names = [name for name, one in self._skb.items() if one.info.id == self.link.info.prog_id]
        return names[0]

    def reset(self) -> None:
        """Put back what was there at the start, without the mount."""
        state = self.state()
        cells = state.keys() | self.start.keys()
        changed = {cell for cell in cells if state.get(cell) != self.start.get(cell)}
        names = sorted(str(cell[1]) for cell in changed if cell[0] == "name")
        for name in reversed(names):  # what is in a directory comes before it
            self._remove(self.bpffs / name)
        for name in names:
            self._put_name(name, self.start.get(("name", name)))
        for cell in changed:
            self._put(cell, self.start.get(cell))
        queue = self.maps["queue"]
        with contextlib.suppress(FileNotFoundError):
            while True:
                queue.pop()
        queue.update(b"", u32(5))

    def _put(self, cell: Cell, value: Hashable) -> None:
        match cell:
            case ("link",):
                self.link.update(self._skb[str(value)])
            case ("name", _):
                pass  # they are put back in an order
            case ("outer", bytes(key)) if value is not None:
                self.maps["outer"].update(key, u32(self.maps["inner"].fd))
            case (str(name), bytes(key)) if isinstance(value, bytes):
                self.maps[name].update(key, value)
            case (str(name), bytes(key)):
                self.maps[name].delete(key)

    def _remove(self, path: Path) -> None:
        if os.path.lexists(path):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def _put_name(self, name: str, value: Hashable) -> None:
        path = self.bpffs / name
        if value is None:
            return
        if name == "directory":
            path.mkdir()
        elif name == "symlink":
            path.symlink_to("directory")
        else:
            pin(path, self._pinned.get(name, self.maps["sample"]))


def _look(path: Path) -> Hashable:
    status = path.lstat()
    target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    return status.st_mode, status.st_uid, status.st_gid, target


@contextlib.contextmanager
def stage(bpffs: Path, entries: int = 5000) -> Iterator[Stage]:
    """Set it, in an empty bpffs; its large map has so many entries."""
    with ExitStack() as stack:
        yield Stage(bpffs, stack, entries)


def between(before: State, after: State, now: State) -> list[Cell]:
    """What is neither as it was nor as it was to become."""
    cells = before.keys() | after.keys() | now.keys()
    return [cell for cell in cells if now.get(cell) not in (before.get(cell), after.get(cell))]
