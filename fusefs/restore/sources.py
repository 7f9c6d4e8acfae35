"""Where the entries of a map stand in its copy: which of its files is to be believed, and the lines
that it makes, as `entries.jsonl` has them."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from fusefs.restore.copies import Copy, Failed, read, reason_of, regular
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.names import digest_of, from_name, hides, to_name, whole_key
from fusefs.text.parse import parse
from fusefs.text.value import to_text
from fusefs.tree.entries import KEY_ATTRIBUTE
from fusefs.tree.map_view import MapView
from fusefs.tree.targets import parse_id

_CHUNK = 1 << 17
_LARGEST_VALUE = 1 << 30


class Source(ABC):
    """Lines of entries; `count` is how many it gave."""

    count = 0

    @abstractmethod
    def pieces(self) -> Iterator[bytes]:
        """The lines, some at a time. Raises `Failed`."""

    @abstractmethod
    def where(self, line: int) -> Path:
        """Where that line was read, the first being 1; or for 0, where all were."""


class Nothing(Source):
    """The map was empty."""

    def pieces(self) -> Iterator[bytes]:
        return iter(())

    def where(self, line: int) -> Path:
        return Path()


NOTHING = Nothing()


class Stream(Source):
    """`entries.jsonl`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pieces(self) -> Iterator[bytes]:
        ended = True
        try:
            with self._file.open("rb") as file:
                while piece := file.read(_CHUNK):
                    self.count += piece.count(b"\n")
                    ended = piece.endswith(b"\n")
                    yield piece
        except OSError as error:
            raise Failed(self._file, reason_of(error)) from None
        self.count += not ended

    def where(self, line: int) -> Path:
        return self._file.with_name(f"{self._file.name}:{line}") if line else self._file


class Listing(Source):
    """`entries/`: a file, a symbolic link or a directory for each key."""

    def __init__(self, copy: Copy, names: Sequence[str], view: MapView) -> None:
        self._directory = copy.path / "entries"
        self._names = names
        self._view = view

    def where(self, line: int) -> Path:
        return self._directory / self._names[line - 1] if line else self._directory

    def pieces(self) -> Iterator[bytes]:
        for name in self._names:
            path = self._directory / name
            try:
                key = self._key(path)
                value = _value(path)
            except (Refused, Incomplete) as error:
                raise Failed(path, str(error)) from None
            except OSError as error:
                raise Failed(path, reason_of(error)) from None
            self.count += 1
            codec = self._view.key
            raw = f', "raw": "{key.hex()}"' if hides(codec, key) else ""
            line = f'{{"key": {to_text(codec, key).rstrip()}{raw}, "value": {value}}}\n'
            yield line.encode("utf-8", "surrogateescape")

    def _key(self, path: Path) -> bytes:
        """The key of which `path` is the name. Raises `Failed`, `Refused` or `Incomplete`."""
        codec, name = self._view.key, path.name
        if not (self._view.long_names and digest_of(name)):
            return from_name(codec, name)
        try:
            told = os.getxattr(path, KEY_ATTRIBUTE, follow_symlinks=False)
            key = whole_key(codec, parse(told.decode()))
        except (OSError, UnicodeDecodeError):
            key = b""
        if not key or to_name(codec, key) != name:
            raise Failed(
                path,
                f"its name is cut, and the copy has no {KEY_ATTRIBUTE} of it: "
                "cp -a, tar --xattrs and rsync -X take that along, and cp -r the entries.jsonl",
            )
        return key


def _value(path: Path) -> str:
    """The value that a file, link or directory in `entries/` stands for. Raises `Failed` and
    OSError."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        if parse_id(number := os.path.basename(os.readlink(path))) is None:
            raise Failed(path, "it leads to no object")
        return number
    if stat.S_ISDIR(mode):
        return str(read(path).id)
    regular(path, _LARGEST_VALUE)
    text = path.read_bytes().decode("utf-8", "surrogateescape").strip()
    if not text:
        raise Failed(path, "it is empty: of a value so large, tar and rsync copy nothing, cp does")
    return " ".join(text.split("\n"))


def source_of(copy: Copy, view: MapView) -> Source:
    """Where to read the entries. `entries.jsonl` is believed if it says something; else `entries/`,
    if that has something. That there was nothing is believed when `count` says so, or when
    `entries/` was copied, and is empty. Raises `Failed`."""
    if stream := copy.stream:
        return Stream(stream)
    names = copy.entries()
    if names:
        return Listing(copy, names, view)
    count = copy.count()
    if count:
        raise Failed(copy.path / "count", f"it says {count}, and the copy has no entries")
    if count is None and names is None:
        raise Failed(
            copy.path,
            "nothing tells what was in it: tar and rsync take entries.jsonl for empty, "
            "cp does not; or copy entries/ as well",
        )
    if view.traits and view.traits.fixed:
        raise Failed(copy.path / "entries", "it is empty, and the map cannot have been")
    return NOTHING
