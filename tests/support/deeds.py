"""All kinds of things that are done with a mount, each to be repeated as often as wanted."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator

from fusefs.bpf.map import Map, MapType
from support.maps import NO_PREALLOC, make_map, pin, u32, u64
from support.mounting import Mount
from support.programs import load

LARGE = 5000  # entries in the map whose stream is cut off


class Deeds:
    """What can be done in a mount; each method `do_…` does one thing, and leaves all as it was."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self._turns = itertools.count()
        small = mount.pin("small", make_map(max_entries=64))
        large = mount.pin("large", make_map(max_entries=LARGE))
        for bpf_map, count in ((small, 8), (large, LARGE)):
            for number in range(count):
                bpf_map.update(u32(number), u64(number))
        mount.pin("trie", make_map(MapType.LPM_TRIE, key=8, value=8, flags=NO_PREALLOC))
        mount.pin("queue", Map.create(MapType.QUEUE, key_size=0, value_size=4, max_entries=8))
        mount.pin("ring", Map.create(MapType.RINGBUF, key_size=0, value_size=0, max_entries=4096))
        inner = mount.pin("inner", make_map(MapType.ARRAY, max_entries=2))
        kind = MapType.ARRAY_OF_MAPS
        mount.pin("slots", Map.create(kind, key_size=4, value_size=4, max_entries=4, inner=inner))
        mount.pin("program", load())
        self._small, self._large = mount.path / "small", mount.path / "large"
        self._entries = self._small / "entries"
        self._by_id = mount.path / f".by-id/maps/{small.info.id}"

    def all(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Each, with its name."""
        for name in dir(self):
            if name.startswith("do_"):
                yield name.removeprefix("do_").replace("_", " "), getattr(self, name)

    # Entries.

    def do_read(self) -> None:
        (self._entries / "1").read_text()

    def do_write(self) -> None:
        (self._entries / "1").write_text(f"{next(self._turns)}\n")

    def do_create_and_delete(self) -> None:
        key = self._entries / str(100 + next(self._turns))
        key.write_text("5")
        key.unlink()

    def do_rename(self) -> None:
        (self._entries / "2").rename(self._entries / "1000")
        (self._entries / "1000").rename(self._entries / "2")

    def do_save(self) -> None:
        scratch = self._entries / f".{next(self._turns)}.swp"
        scratch.write_text("7\n")
        scratch.rename(self._entries / "3")

    def do_abandon_a_scratch_file(self) -> None:
        scratch = self._entries / f".{next(self._turns)}.swp"
        scratch.write_text("no value")
        scratch.unlink()

    def do_read_what_is_not_there(self) -> None:
        for name in (str(10**6 + next(self._turns)), f"x{next(self._turns)}"):
            with contextlib.suppress(FileNotFoundError):
                (self._entries / name).read_text()

    def do_write_what_is_refused(self) -> None:
        for name, text in (("1", "x\n"), (f"no key {next(self._turns)}", "1\n"), ("1", "[")):
            with contextlib.suppress(OSError):
                (self._entries / name).write_text(text)

    def do_create_and_write_nothing(self) -> None:
        (self._entries / str(100 + next(self._turns))).open("x").close()

    def do_list(self) -> None:
        os.listdir(self._entries)
        for entry in os.scandir(self._small):
            entry.stat()

    def do_list_many_with_attributes(self) -> None:
        for entry in itertools.islice(os.scandir(self._large / "entries"), 600):
            entry.stat()

    def do_cut_off_a_stream(self) -> None:
        with (self._large / "entries.jsonl").open("rb", buffering=0) as file:
            file.read(100)

    def do_read_lines(self) -> None:
        (self._small / "entries.jsonl").read_text()

    def do_write_lines(self) -> None:
        lines = [json.dumps({"key": key, "value": next(self._turns)}) for key in range(8)]
        (self._small / "entries.jsonl").write_text("\n".join(lines))

    def do_cut_off_lines(self) -> None:
        with contextlib.suppress(OSError):
            (self._small / "entries.jsonl").write_text('{"key": 1, "value": 2}\n{"key": ')

    def do_set_and_clear_a_slot(self) -> None:
        slot = self.mount.path / "slots/entries/1"
        slot.symlink_to("../../inner")
        os.readlink(slot)
        (slot / "info").read_text()
        slot.unlink()

    def do_set_a_prefix_and_remove_it(self) -> None:
        key = self.mount.path / f"trie/entries/10.0.{next(self._turns) % 256}.0_24"
        key.write_text('"0000000000000000"')
        key.read_text()
        key.unlink()

    def do_push_and_pop(self) -> None:
        (self.mount.path / "queue/push").write_text('"01020304"\n')
        (self.mount.path / "queue/head").unlink()

    # Other files of objects.

    def do_look_into_every_file(self) -> None:
        for pinned in ("small", "program", "ring"):
            for entry in os.scandir(self.mount.path / pinned):
                if entry.is_file(follow_symlinks=False):
                    with open(entry, "rb") as file:
                        file.read(1 << 16)

    def do_change_the_format(self) -> None:
        (self._small / "format").write_text("value: hex\n")
        (self._entries / "1").read_text()
        (self._small / "format").write_text("value: auto\n")

    def do_run_a_program(self) -> None:
        with (self.mount.path / "program/test_run").open("r+b", buffering=0) as file:
            file.write(bytes(64))
            file.read()

    def do_wait_for_records(self) -> None:
        path = self.mount.path / "ring/records_pipe"
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    def do_look_up_by_id(self) -> None:
        (self._by_id / "entries/1").read_text()
        with contextlib.suppress(FileNotFoundError):
            os.stat(self.mount.path / f".by-id/maps/{2**31 + next(self._turns)}")

    def do_draw_a_graph(self) -> None:
        (self.mount.path / ".by-id/graph.dot").read_text()

    # bpffs.

    def do_make_and_remove_a_directory(self) -> None:
        made = self.mount.path / f"directory{next(self._turns)}"
        made.mkdir()
        os.listdir(made)
        (made / "link").symlink_to("x")
        (made / "link").unlink()
        made.rmdir()

    def do_pin_use_and_unpin(self) -> None:
        name = f"pin{next(self._turns)}"
        with make_map() as made:
            made.update(u32(1), u64(1))
            pin(self.mount.source / name, made)
        (self.mount.path / name / "entries/1").read_text()
        os.listdir(self.mount.path / name / "entries")
        (self.mount.path / name / "info").read_text()
        with (self.mount.path / name / "entries.jsonl").open("rb", buffering=0) as file:
            file.read(10)
            (self.mount.source / name).unlink()

    def do_rename_a_pin(self) -> None:
        with make_map() as made:
            self.mount.pin("before", made)
        os.listdir(self.mount.path / "before")
        (self.mount.path / "before").rename(self.mount.path / "after")
        (self.mount.path / "after").rmdir()
