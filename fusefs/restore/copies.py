"""What a copy of a mount, or of a part of it, has: a directory for each pin, as the tool made it
that copied it. It is read, and never believed more than it says.

A stream has no size in a mount (`entries.jsonl`, `count`): cp(1) copies it all the same, tar(1) and
rsync(1) take it for empty. What is in `entries/` has its true size, and they copy that.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusefs.text.jsontext import Json, escape_controls, printable
from fusefs.tree.context import BY_ID
from fusefs.tree.definition import Definition, Unmakable, definition

INFO = "info.json"
# What is in the directory of a pin, and in none of bpffs, whose names have no dots.
_MARKS = frozenset({"types.h", "entries.jsonl", "xlated.bin"})
_LARGEST_TEXT = 1 << 24
_LARGEST_BTF = 1 << 28


class Failed(Exception):  # noqa: N818 - a pin's fate, as `Refused` is a text's
    """Why something cannot be restored, in one line (and one with what was read); `where` is the
    file that tells, with the number of a line where there is one."""

    def __init__(self, where: str | Path, reason: str) -> None:
        self.where = shown(where)
        self.reason = escape_controls(reason)
        super().__init__(f"{self.where}: {self.reason}")


def shown(path: str | Path) -> str:
    """A path for people: names may be of any bytes."""
    return escape_controls(printable(str(path)))


# What ties a map to the other pins that it had.
Identity = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of a pin's directory. `names` lead to the pin from the directory that was copied."""

    path: Path
    names: tuple[str, ...]
    info: dict[str, Json]

    @property
    def kind(self) -> str:
        """What was pinned: `map`, `program`, `link`; or empty for what nobody could open."""
        marks = {"max_entries": "map", "tag": "program", "prog_id": "link"}
        return next((kind for mark, kind in marks.items() if mark in self.info), "")

    def definition(self) -> Definition:
        """What the map is made with. Raises `Failed`."""
        try:
            return definition(self.info)
        except Unmakable as error:
            raise Failed(self.path / INFO, str(error)) from None

    @property
    def id(self) -> int:
        """The id that the object had."""
        number = self.info.get("id")
        return number if isinstance(number, int) else 0

    @property
    def identity(self) -> Identity:
        """What is the same for the pins of one map: its id, which another may have had before it in
        a copy that was added to, and what else it was."""
        told = ("id", "type", "name", "key_size", "value_size", "max_entries", "btf_id", "pins")
        return tuple(str(self.info.get(name)) for name in told)

    def text(self, name: str) -> str:
        """What a small file says; empty where there is none. Raises `Failed`."""
        file = self.path / name
        if not file.exists():
            return ""
        regular(file, _LARGEST_TEXT)
        try:
            return file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(file, reason_of(error)) from None

    def count(self) -> int | None:
        """What `count` says; None where it says nothing. Raises `Failed`."""
        told = self.text("count").strip()
        if told and not re.fullmatch("[0-9]{1,10}", told):
            raise Failed(self.path / "count", "it is no number")
        return int(told) if told else None

    def blob(self) -> bytes:
        """The BTF of the map. Raises `Failed`."""
        file = self.path / "btf"
        if not file.exists():
            raise Failed(file, "it is missing, and the map had types")
        regular(file, _LARGEST_BTF)
        try:
            return file.read_bytes()
        except OSError as error:
            raise Failed(file, reason_of(error)) from None

    def entries(self) -> list[str] | None:
        """The names in `entries/`, in order; None where that is missing. Raises `Failed`."""
        try:
            return sorted(os.listdir(self.path / "entries"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failed(self.path / "entries", reason_of(error)) from None

    @property
    def stream(self) -> Path | None:
        """`entries.jsonl`, if there is something in it. Raises `Failed`."""
        file = self.path / "entries.jsonl"
        if not file.exists():
            return None
        regular(file)
        try:
            with file.open("rb") as opened:  # that of a mount itself has no size
                return file if opened.read(1) else None
        except OSError as error:
            raise Failed(file, reason_of(error)) from None

    def followed(self) -> dict[int, Path]:
        """Copies of the maps in its slots, by the ids that they had, where the tool that copied it
        has followed symbolic links. Raises `Failed`."""
        paths = (self.path / "entries" / name for name in self.entries() or ())
        return {read(path).id: path for path in paths if path.is_dir() and not path.is_symlink()}

    def held_something(self) -> bool:
        """Whether it tells of something that was in the map. Raises `Failed`."""
        return bool(self.stream or self.entries() or (self.path / "head").exists())


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link that was in bpffs."""

    path: Path
    names: tuple[str, ...]
    target: str


def regular(file: Path, most: int | None = None) -> None:
    """Raise `Failed` unless it is a regular file, of no more than so many bytes."""
    try:
        status = file.stat()
    except OSError as error:
        raise Failed(file, reason_of(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise Failed(file, "it is no regular file")
    if most is not None and status.st_size > most:
        raise Failed(file, f"it has more than {most} bytes")


def reason_of(error: Exception) -> str:
    """What an error says, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def find(top: Path) -> Iterator[Copy | Link | Failed]:
    """All that is in a copy, in order; what cannot be read as the error that says so. A copy of
    one pin's directory stands for a pin of its name."""
    if (top / INFO).exists():
        yield from _pin(top, (top.resolve().name,))
    else:
        yield from _below(top, ())


def _below(directory: Path, names: tuple[str, ...]) -> Iterator[Copy | Link | Failed]:
    try:
        found = sorted(os.listdir(directory))
    except OSError as error:
        yield Failed(directory, reason_of(error))
        return
    if _MARKS & set(found):
        yield Failed(directory / INFO, "it is missing, and this looks like the copy of a pin")
        return
    for name in found:
        path, own = directory / name, (*names, name)
        if own == (BY_ID,):
            continue
        try:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield Link(path, own, os.readlink(path))
            elif stat.S_ISDIR(mode):
                yield from _pin(path, own) if (path / INFO).exists() else _below(path, own)
        except OSError as error:
            yield Failed(path, reason_of(error))


def _pin(path: Path, names: tuple[str, ...]) -> Iterator[Copy | Failed]:
    try:
        yield read(path, names)
    except Failed as failed:
        yield failed


def read(path: Path, names: tuple[str, ...] = ()) -> Copy:
    """The copy of a pin's directory; of no pin, if it has no names. Raises `Failed`."""
    file = path / INFO
    regular(file, _LARGEST_TEXT)
    try:
        info = json.loads(file.read_text())
    except OSError as error:
        raise Failed(file, reason_of(error)) from None
    except (ValueError, RecursionError):
        raise Failed(file, "it is no JSON") from None
    if not isinstance(info, dict):
        raise Failed(file, "it is no JSON object")
    return Copy(path, names, info)
