"""A map as a Python dictionary has it, and the same seen and changed through a mount.

Each operation is done on both, and has to end the same way: with the same error, or with none.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fusefs.bpf import libc
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType
from support.maps import NO_PREALLOC, dump, u32

# For so long, in seconds, the kernel may believe names and attributes that it was told before.
LAG = 0.06
_AT_FDCWD = -100  # linux/fcntl.h
NOREPLACE = 1  # RENAMENOREPLACE, linux/fs.h

Value = tuple[tuple[int, int], ...]  # of each CPU: the two members
# What is written: an object with some of the members, or a list of those for all CPUs; or whatever
# a device is called.
Form = Any


class Values(Protocol):
    """What the values of a map are."""

    def merged(self, form: Form, old: Value | None) -> Value:
        """What is set when `form` is written over `old`, or as a new value."""

    def shown(self, value: Value) -> object:
        """What reading gives."""

    def raw(self, value: Value) -> bytes:
        """What the kernel has."""


class Pairs:
    """`struct pair`; or one for each CPU."""

    def __init__(self, copies: int) -> None:
        self.copies = copies

    def merged(self, form: Form, old: Value | None) -> Value:
        before = old or ((0, 0),) * self.copies
        forms = form if isinstance(form, list) else [form] * self.copies
        return tuple(
            (new.get("first", first), new.get("second", second))
            for new, (first, second) in zip(forms, before, strict=True)
        )

    def shown(self, value: Value) -> object:
        pairs = [{"first": first, "second": second} for first, second in value]
        return pairs if self.copies > 1 else pairs[0]

    def raw(self, value: Value) -> bytes:
        return b"".join(struct.pack("=Ii", *pair) for pair in value)


class Devices:
    """The loopback interface, and no program: there is no other value in each network namespace."""

    def merged(self, form: Form, old: Value | None) -> Value:
        return ((1, 0),)

    def shown(self, value: Value) -> object:
        return {"ifindex": 1, "interface": "lo", "prog_id": 0}

    def raw(self, value: Value) -> bytes:
        return struct.pack("=II", *value[0])


@functools.cache
def _types() -> tuple[BtfObject, int, int, int]:
    """BTF; and in it, a number, a prefix and a pair."""
    made = BtfBuilder()
    number = made.integer("__u32", 4)
    signed = made.integer("int", 4, signed=True)
    address = made.struct("in_addr", 4, [("s_addr", made.typedef("__be32", number), 0)])
    prefix = made.struct("prefix", 8, [("length", number, 0), ("address", address, 32)])
    pair = made.struct("pair", 8, [("first", number, 0), ("second", signed, 32)])
    return BtfObject.load(made.build()), number, prefix, pair


_PREFIXES = ("0.0.0.0_0", "10.0.0.0_8", "10.1.0.0_16", "10.1.0.0_17", "10.1.2.0_24", "10.1.2.3_32")


@dataclass(frozen=True)
class Kind:
    """A type of map, and how it is made and used here."""

    map_type: MapType
    max_entries: int = 4

    @property
    def fixed(self) -> bool:
        """Whether all keys are there for good."""
        return self.map_type in (MapType.ARRAY, MapType.PERCPU_ARRAY)

    @property
    def takes_lines(self) -> bool:
        """Whether entries.jsonl can be written."""
        return self.map_type != MapType.DEVMAP_HASH

    @property
    def prefixes(self) -> bool:
        return self.map_type == MapType.LPM_TRIE

    @property
    def copies(self) -> int:
        """So many values has a key."""
        return possible_cpus() if "PERCPU" in self.map_type.name else 1

    @property
    def values(self) -> Values:
        return Devices() if self.map_type == MapType.DEVMAP_HASH else Pairs(self.copies)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of keys, more than the map can hold."""
        return _PREFIXES if self.prefixes else tuple(map(str, range(6)))

    def spellings(self, key: str) -> Sequence[str]:
        """Other names that find the key."""
        return () if self.prefixes else (hex(int(key)), f"0{key}")

    def raw(self, key: str) -> bytes:
        """A key as the kernel has it."""
        if not self.prefixes:
            return u32(int(key))
        address, _, length = key.partition("_")
        return u32(int(length)) + socket.inet_aton(address)

    def past_end(self, key: str) -> bool:
        return self.fixed and int(key) >= self.max_entries

    def make(self) -> Map:
        """Such a map, without BTF where the kernel takes none."""
        btf, number, prefix, pair = _types()
        typed = self.map_type != MapType.DEVMAP_HASH
        return Map.create(
            self.map_type,
            key_size=8 if self.prefixes else 4,
            value_size=8,
            max_entries=self.max_entries,
            name="model",
            flags=NO_PREALLOC if self.prefixes else 0,
            btf=btf if typed else None,
            key_type=0 if not typed else prefix if self.prefixes else number,
            value_type=pair if typed else 0,
        )


@contextlib.contextmanager
def ending(number: int) -> Iterator[None]:
    """What is done in the block must end with this error, 0 for none."""
    try:
        yield
    except OSError as error:
        got = error.errno or 0
    else:
        got = 0
    names = errno.errorcode
    assert got == number, f"{names.get(got, 'success')}, expected {names.get(number, 'success')}"


def rename(old: Path, new: Path, flags: int) -> None:
    """renameat2(2)."""
    paths = os.fsencode(old), os.fsencode(new)
    libc.call("renameat2", _AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(flags))


def _write(path: Path, flags: int, pieces: Sequence[str]) -> None:
    """Write pieces of a text; what closing says counts, too."""
    fd = os.open(path, flags, 0o644)
    with os.fdopen(fd, "wb", buffering=0) as file:
        for piece in pieces:
            data = piece.encode()
            assert file.write(data) == len(data)


class Twins:
    """A map as it is shown in a mount, at `path`, and a dictionary that should have the same."""

    def __init__(self, kind: Kind, bpf_map: Map, path: Path) -> None:
        self.kind = kind
        self.operations = 0
        self._map = bpf_map
        self._path = path
        self._entries = path / "entries"
        self._values = kind.values
        self._model: dict[str, Value] = {}
        self._elsewhere = 0.0  # when something was changed elsewhere than in a file of its name
        if kind.fixed:
            zero = self._values.merged({}, None)
            self._model = {key: zero for key in kind.keys if not kind.past_end(key)}
        for number, key in enumerate(kind.keys[:2]):
            self._model[key] = self._values.merged({"first": number, "second": -number}, None)
            bpf_map.update(kind.raw(key), self._values.raw(self._model[key]))

    def do(self, name: str, *arguments: Any) -> None:
        """One of the operations below."""
        operation: Callable[..., None] = getattr(self, name)
        operation(*arguments)
        self.operations += 1

    # What the model knows.

    def _settle(self) -> None:
        """Wait until the kernel no longer believes what it was told before the last change."""
        time.sleep(max(self._elsewhere + LAG - time.monotonic(), 0))

    def _changed_elsewhere(self) -> None:
        self._elsewhere = time.monotonic()

    def _set(self, key: str, form: Form) -> int:
        """Set a value; the error that this has to end with."""
        if key not in self._model and len(self._model) >= self.kind.max_entries:
            return errno.ENOSPC
        self._model[key] = self._values.merged(form, self._model.get(key))
        return 0

    def _text(self, key: str) -> str:
        return json.dumps(self._values.shown(self._model[key])) + "\n"

    def _wanted(self, key: str, form: Form, flags: int) -> int:
        """Write in the model; the error."""
        creates = bool(flags & os.O_CREAT)
        if self.kind.past_end(key):
            return errno.EINVAL if creates else errno.ENOENT
        if key not in self._model and not creates:
            return errno.ENOENT
        if key in self._model and flags & os.O_EXCL:
            return errno.EEXIST
        return errno.EINVAL if form is None else self._set(key, form)

    # The operations.

    def write(self, key: str, form: Form, pieces: Sequence[str], flags: int, name: str) -> None:
        """Write a text in pieces, which means `form`, or nothing that is a value; to a file that is
        called `name`."""
        if flags & os.O_EXCL:
            self._settle()
        with ending(self._wanted(key, form, flags)):
            _write(self._entries / name, flags | os.O_WRONLY, pieces)

    def save(self, key: str, form: Form, pieces: Sequence[str], scratch: str) -> None:
        """As editors do: write another file, and rename it over the entry."""
        _write(self._entries / scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, pieces)
        wanted = self._wanted(key, form, os.O_CREAT)
        with ending(wanted):
            os.rename(self._entries / scratch, self._entries / key)
        if wanted:
            os.unlink(self._entries / scratch)

    def read(self, key: str, name: str) -> None:
        if key not in self._model:
            with ending(errno.ENOENT):
                (self._entries / name).read_text()
            return
        assert (self._entries / name).read_text() == self._text(key)

    def stat(self, key: str) -> None:
        self._settle()
        if key not in self._model:
            with ending(errno.ENOENT):
                (self._entries / key).stat()
            return
        assert (self._entries / key).stat().st_size == len(self._text(key))

    def touch(self, key: str) -> None:
        """Cut it to nothing, and set its times: that changes nothing."""
        self._settle()
        with ending(0 if key in self._model else errno.ENOENT):
            os.truncate(self._entries / key, 0)
            os.utime(self._entries / key)

    def delete(self, key: str, name: str) -> None:
        wanted = errno.EPERM if self.kind.fixed else 0
        if key not in self._model:
            wanted = errno.ENOENT
        with ending(wanted):
            os.unlink(self._entries / name)
        if not wanted:
            del self._model[key]
            if name != key:
                self._changed_elsewhere()

    def rename(self, key: str, new: str, flags: int) -> None:
        self._settle()
        wanted = self._renamed(key, new, flags)
        with ending(wanted):
            rename(self._entries / key, self._entries / new, flags)
        self._changed_elsewhere()

    def _renamed(self, key: str, new: str, flags: int) -> int:
        """Rename in the model; the error."""
        if key not in self._model:
            return errno.ENOENT
        if flags & NOREPLACE and new in self._model:
            return errno.EEXIST
        if key == new:
            return 0
        if self.kind.fixed:
            return errno.EPERM
        if new not in self._model and len(self._model) >= self.kind.max_entries:
            return errno.ENOSPC
        self._model[new] = self._model.pop(key)
        return 0

    def refused(self, name: str) -> None:
        """A name that is no key."""
        with ending(errno.EINVAL):
            (self._entries / name).write_text("{}\n")
        with ending(errno.ENOENT):
            (self._entries / name).read_text()

    def list(self) -> None:
        assert sorted(os.listdir(self._entries)) == sorted(self._model)
        assert (self._path / "count").read_text() == f"{len(self._model)}\n"

    def write_lines(self, lines: Sequence[tuple[str, Form]], bad: str) -> None:
        """Many entries at once, and a last line that may be bad: then nothing changes."""
        texts = [json.dumps({"key": _json_key(key), "value": form}) for key, form in lines]
        past_end = any(self.kind.past_end(key) for key, _ in lines)
        wanted = errno.EINVAL if bad or past_end else 0
        if not wanted:
            wanted = next((error for key, form in lines if (error := self._set(key, form))), 0)
        with ending(wanted):
            _write(self._path / "entries.jsonl", os.O_WRONLY, ["\n".join([*texts, bad, ""])])
        self._changed_elsewhere()

    def read_lines(self) -> None:
        lines = [json.loads(text) for text in (self._path / "entries.jsonl").open()]
        found = {_name_of(line["key"]): line["value"] for line in lines}
        assert len(found) == len(lines)
        assert found == {key: self._values.shown(value) for key, value in self._model.items()}

    def set_beside(self, key: str, form: Form) -> None:
        """Somebody else's bpf(2)."""
        wanted = self._wanted(key, form, os.O_CREAT)
        if not wanted:
            self._map.update(self.kind.raw(key), self._values.raw(self._model[key]))
        self._changed_elsewhere()
        self.read(key, key)

    def delete_beside(self, key: str) -> None:
        """The same."""
        if key in self._model and not self.kind.fixed:
            self._map.delete(self.kind.raw(key))
            del self._model[key]
        self._changed_elsewhere()
        self.read(key, key)

    def compare(self) -> None:
        """All that there is, and as the kernel has it."""
        self.list()
        self.read_lines()
        for key in self._model:
            self.read(key, key)
        raw = {self.kind.raw(k): self._values.raw(v) for k, v in self._model.items()}
        assert dump(self._map) == raw


def _json_key(key: str) -> object:
    return key.replace("_", "/") if "_" in key else int(key)


def _name_of(key: object) -> str:
    return str(key).replace("/", "_")


def kinds() -> Mapping[str, Kind]:
    """The types that have a file for each key, by their names; few entries, so that they are full
    now and then, but where the kernel would then drop some."""
    roomy = {MapType.LRU_HASH: 1024, MapType.LRU_PERCPU_HASH: 1024}
    types = (
        MapType.HASH, MapType.LRU_HASH, MapType.ARRAY, MapType.PERCPU_HASH,
        MapType.LRU_PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LPM_TRIE, MapType.DEVMAP_HASH,
    )  # fmt: skip
    return {each.name.lower(): Kind(each, roomy.get(each, 4)) for each in types}
