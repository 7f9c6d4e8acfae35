"""What was in a map, from its copy into a map: by the nodes that a mount has for it, so that texts,
formats and reasons are the same."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fusefs.bpf import bpffs
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.restore.copies import Copy, Failed, reason_of
from fusefs.restore.sources import NOTHING, Source, source_of
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.jsontext import Json, to_json
from fusefs.text.lines import from_line
from fusefs.text.names import to_name, whole_key
from fusefs.text.parse import parse
from fusefs.tree.by_id import IdPlace
from fusefs.tree.context import Context
from fusefs.tree.entries_directory import Entries
from fusefs.tree.error_log import ErrorLogs
from fusefs.tree.formats import Formats
from fusefs.tree.map_files import map_files
from fusefs.tree.map_types import Shape
from fusefs.tree.map_view import Finder, MapView
from fusefs.tree.node import File, Handle
from fusefs.tree.streams import Count

_LINE = re.compile(r"line (\d+) of")

# Gives the map for a slot, by the id of the one that was in it. Raises `Failed`.
Inner = Callable[[int], Map]

# Types that are made empty, and why; of some only when there was something in them.
_LEFT_EMPTY: Mapping[Shape, str] = {
    Shape.PROGRAMS: "the programs in its slots are for their loader to put in",
    Shape.CGROUPS: "its slots are to be set again, with ln -s",
    Shape.OF_TASKS: "its values belonged to threads",
    Shape.OF_CGROUPS: "its values belonged to cgroups, as they were then",
    Shape.OF_INODES: "its values belonged to inodes, which were not listed",
    Shape.OF_SOCKETS: "its values belonged to sockets",
    Shape.SOCKETS: "sockets are put in by their owners",
    Shape.STACKS: "stacks are put in by programs",
    Shape.QUEUE: "more than its head could not be read",
    Shape.RECORDS: "records are for those who read them",
    Shape.USER_RECORDS: "records are for the programs that read them",
    Shape.BLOOM: "a filter does not tell what was added",
    Shape.NOTHING: "what was in it could not be read",
}
_UNLISTED = frozenset(
    {Shape.CGROUPS, Shape.OF_INODES, Shape.OF_SOCKETS, Shape.RECORDS, Shape.USER_RECORDS,
     Shape.BLOOM, Shape.NOTHING}
)  # fmt: skip
_TAKING = frozenset({Shape.VALUES, Shape.MAPS, Shape.DEVICES, Shape.CPUS})
_ORDER = sys.byteorder
_OF_CGROUPS = "its entries come when programs are attached to cgroups"


@dataclass
class Outcome:
    """What became of a pin, in a few words; and what was left out of it, a line each."""

    words: str
    left_out: list[Failed] = field(default_factory=list)


class _Complaints(ErrorLogs):
    """Why the last thing was refused, which a mount would show in a file."""

    what = reason = ""

    def add(self, obj: Object, what: str, reason: str, text: str = "", at: int = 0) -> None:
        self.what, self.reason = what, reason


class Filling:
    """A map that is filled from a copy. What does not fit raises `Failed`."""

    def __init__(self, copy: Copy, bpf_map: Map, root: bpffs.Directory, formats: Formats) -> None:
        """`formats` has the files with types that the formats of the copy may name."""
        self._copy = copy
        self._map = bpf_map
        self._complaints = _Complaints()
        context = Context(root, "/", logs=self._complaints, formats=Formats(files=formats.files))
        finder = Finder(IdPlace(context, Map, bpf_map.info.id))
        found = finder.now()
        assert found.view  # it is a map
        self.view: MapView = found.view
        self._files = map_files(finder, found)
        self._caller = Caller(os.geteuid(), os.getegid())

    @property
    def takes_entries(self) -> bool:
        """Whether there is something that could be put in."""
        traits = self.view.traits
        return bool(traits and traits.shape in _TAKING and not (traits.unmade or traits.unset))

    def fill(self, inner: Inner) -> Outcome:
        """Put in what was in it; `inner` gives the maps in the slots of a map of maps."""
        self._use_formats()
        traits = self.view.traits
        shape = traits.shape if traits else Shape.NOTHING
        if traits and traits.unmade:
            return Outcome(f"empty: {_OF_CGROUPS}")
        match shape:
            case Shape.VALUES:
                return Outcome(self._entries())
            case Shape.MAPS:
                return self._slots(inner)
            case Shape.DEVICES | Shape.CPUS:
                return self._redirects()
        had = shape in _UNLISTED or self._copy.held_something()
        return Outcome(f"empty: {_LEFT_EMPTY[shape]}" if had else "empty")

    def check_types(self, wanted: tuple[str | None, str | None]) -> None:
        """Hold its types to the names that those of the copy have: another BTF may have others of
        the same ids and sizes."""
        types = self.view.btf.key_type, self.view.btf.value_type
        if types != wanted:
            given = ", ".join(str(name) for name in types)
            raise Failed(self._copy.path / "btf", f"it is not the map's: its types are {given}")

    def _use_formats(self) -> None:
        text = self._copy.text("format")
        if text and isinstance(file := self._files.get("format"), File):
            self._write(file, [text.encode()], lambda _line: self._copy.path / "format")

    def _entries(self) -> str:
        source = source_of(self._copy, self.view)
        if source is not NOTHING:
            stream = self._files["entries.jsonl"]
            assert isinstance(stream, File)
            self._write(stream, source.pieces(), source.where)
        return self._counted(source)

    def _counted(self, source: Source) -> str:
        """How many entries it has, and whether that is what the copy tells."""
        count = self._files["count"]
        assert isinstance(count, Count)
        has = int(b"".join(count.stream(self._map)))
        told = self._copy.count()
        words = _entries(has) if has == source.count else f"{source.count} of {_entries(has)}"
        if has < source.count:
            words = f"{_entries(has)}, of {source.count} in the copy"
        if told not in (None, source.count):
            words += f", though its count says {told}"
        return words

    def _slots(self, inner: Inner) -> Outcome:
        """Put maps in the slots of a map of maps, those of the copy."""
        source = source_of(self._copy, self.view)
        done, left_out = 0, []
        for number, line in _lines(source):
            try:
                entry = from_line(self.view.key, self.view.value, line, self._map.values_of)
                with inner(int.from_bytes(entry.value, _ORDER)) as bpf_map:
                    self._map.update(entry.key, bpf_map.fd.to_bytes(4, _ORDER))
                done += 1
            except Failed as failed:
                left_out.append(Failed(source.where(number), f"left out: {failed.reason}"))
            except OSError as error:
                reason = "it does not fit" if error.errno == errno.EINVAL else reason_of(error)
                left_out.append(Failed(source.where(number), f"left out: {reason}"))
            except (Refused, Incomplete) as error:
                raise Failed(source.where(number), str(error)) from None
        return _slots_done(done, source.count, left_out)

    def _redirects(self) -> Outcome:
        """Put in interfaces, by their names, and queues of CPUs."""
        source = source_of(self._copy, self.view)
        done, left_out = 0, []
        for number, line in _lines(source):
            where = source.where(number)
            try:
                told = json.loads(line)
                key = whole_key(self.view.key, parse(to_json(told["key"])))
                self._redirect(to_name(self.view.key, key), told["value"], where)
                done += 1
            except Failed as failed:
                left_out.append(Failed(where, f"left out: {failed.reason}"))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise Failed(where, f"it is no entry ({error})") from None
        return _slots_done(done, source.count, left_out)

    def _redirect(self, name: str, told: Json, where: Path) -> None:
        given = told if isinstance(told, dict) else {}
        if program := given.get("prog_id"):
            raise Failed(where, f"program {program}, which ran on what came there, is gone")
        word = "qsize" if "qsize" in given else "interface"
        if given.get(word) is None:
            raise Failed(where, "the name of its interface was not known")
        entries = self._files["entries"]
        assert isinstance(entries, Entries)
        try:
            file = entries.make(name, self._caller)
        except OSError as error:
            raise self._failed(error, where) from None
        self._write(file, [to_json({word: given[word]}).encode()], lambda _line: where)

    def _write(self, file: File, pieces: Iterable[bytes], where: Callable[[int], Path]) -> None:
        """Write a text to a node; `where` tells of a line of it where it was read."""
        try:
            handle = file.open(os.O_WRONLY | os.O_CREAT, self._caller)
            try:
                _pour(handle, pieces)
            finally:
                handle.close()
        except OSError as error:
            line = _LINE.search(self._complaints.what)
            raise self._failed(error, where(int(line[1]) if line else 0)) from None

    def _failed(self, error: OSError, where: Path) -> Failed:
        """The error as the log of a mount would tell it."""
        what, reason = self._complaints.what, self._complaints.reason
        self._complaints.what = self._complaints.reason = ""
        done = re.search(r"\d+ of \d+ entries set, stopped at key .*", what)
        return Failed(where, (f"{done[0]}: " if done else "") + (reason or reason_of(error)))


def _pour(handle: Handle, pieces: Iterable[bytes]) -> None:
    """Write a text, and commit it. Raises OSError."""
    offset = 0
    for piece in pieces:
        rest = piece
        while rest:
            taken = handle.write(offset, rest) or 0
            offset, rest = offset + taken, rest[taken:]
    for _turn in handle.flush():
        pass


def _lines(source: Source) -> list[tuple[int, str]]:
    """The lines that a source has, with their numbers."""
    lines = b"".join(source.pieces()).decode("utf-8", "replace").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _entries(count: int) -> str:
    return "empty" if count == 0 else "1 entry" if count == 1 else f"{count} entries"


def _slots_done(done: int, count: int, left_out: list[Failed]) -> Outcome:
    words = _entries(done) if done == count else f"{done} of {_entries(count)}"
    return Outcome(words, left_out)
