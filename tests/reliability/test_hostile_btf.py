"""BTF made to harm: a clean error, and in bounded time and memory. The kernel takes most of it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.btf_strategies import Maker
from support.hostile_btf import MAKERS, Hostile, attempted, changed, read_all
from support.maps import u32, u64
from support.mounting import Mount
from support.soaking import Figure, passing, tried

from fusefs.bpf.btf import Btf, BtfError
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map, MapType
from fusefs.text.codec import Codec, unpacked
from fusefs.text.compile import compile_codec, type_name
from fusefs.text.declarations import declarations, every_declaration
from fusefs.text.names import from_name, to_name

# Seconds of one processor, several times what it takes. Before there were bounds it was minutes, or
# gigabytes.
LONGEST = 1.5
_NO_PREALLOC = 1


class Timed:
    """Calls, and the longest that one took, in seconds of this processor."""

    def __init__(self) -> None:
        self.longest = 0.0

    def call(self, make: Callable[..., object], *arguments: object) -> object:
        """What it gave; None when the blob is malformed there."""
        start = time.thread_time()
        result = attempted(make, *arguments)
        self.longest = max(self.longest, time.thread_time() - start)
        return result


def read(blob: bytes, hostile: Hostile) -> float:
    """Do with the type what a mount does; how long the longest of it took."""
    timed = Timed()
    btf = timed.call(Btf.parse, blob)
    assert isinstance(btf, Btf)
    codec = timed.call(compile_codec, btf, hostile.type_id)
    if isinstance(codec, Codec):
        assert codec.size == hostile.size
        data = b"\xff" * codec.size
        timed.call(lambda: codec.shown(unpacked(codec, data)))
        timed.call(to_name, codec, data)
        timed.call(type_name, btf, hostile.type_id)
    timed.call(declarations, btf, [hostile.type_id])
    pieces = every_declaration(btf)
    while timed.call(next, pieces, None) is not None:
        pass
    return timed.longest


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_large_is_refused_or_read_soon(name: str, figure: Figure) -> None:
    types = BtfBuilder()
    hostile = MAKERS[name](types)
    longest = read(types.build(), hostile)
    figure(f"{name}: longest step, ms", round(longest * 1000))
    assert longest < LONGEST


@st.composite
def blobs(draw: st.DrawFn) -> bytes:
    """Types of every kind, some words of which are others."""
    maker = Maker(draw)
    maker.outermost(3)
    small = st.one_of(st.integers(0, 40), st.integers(0, 19).map(lambda kind: kind << 24 | 2))
    bits = st.integers(0, 31).map(lambda bit: 1 << bit)
    word = st.one_of(small, bits, st.sampled_from([0xFFFFFFFF, 0x7FFFFFFF, 0x84000003, 0xFFFF]))
    changes = st.lists(st.tuples(st.integers(0, 400), word), max_size=6)
    return changed(maker.types.build(), draw(changes))


@pytest.mark.soak(short=2)
def test_types_of_which_words_were_changed(span: float, figure: Figure) -> None:
    codecs = longest = 0.0

    @settings(
        max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(blobs())
    def attempt(blob: bytes) -> None:
        nonlocal codecs, longest
        start = time.thread_time()
        codecs += read_all(blob)
        longest = max(longest, time.thread_time() - start)
        assert longest < LONGEST

    figure("blobs", 100 * tried(attempt, span))
    figure("codecs made of them", int(codecs))
    figure("longest for one blob, ms", round(longest * 1000))


@pytest.mark.soak(short=1)
def test_any_bytes(span: float, figure: Figure) -> None:
    @settings(max_examples=100, deadline=None, database=None)
    @given(st.binary(max_size=400), st.booleans())
    def attempt(noise: bytes, headed: bool) -> None:
        types = noise[: len(noise) // 8 * 4]
        strings = b"\0" + noise[len(types) :] + b"\0"
        builder = BtfBuilder()
        builder._types, builder._strings = [types], bytearray(strings)
        read_all(builder.build() if headed else noise)

    figure("blobs of noise", 100 * tried(attempt, span))


class Bystander:
    """Somebody who reads another file all the time, and how long the longest wait was, and how much
    of a processor the daemon had meanwhile: what it did before, whoever else was busy."""

    def __init__(self, path: Path, daemon: int) -> None:
        self._path = path
        self._daemon = Path(f"/proc/{daemon}/schedstat")
        self.longest = self.busiest = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        while not self._ended.wait(0.003):
            start, before = time.monotonic(), self._worked()
            assert self._path.read_bytes() == b"500\n"
            self.longest = max(self.longest, time.monotonic() - start)
            self.busiest = max(self.busiest, self._worked() - before)

    def _worked(self) -> float:
        """Seconds that the daemon has had."""
        return int(self._daemon.read_text().split()[0]) / 1e9

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def maps_of(blob: BtfObject, hostile: Hostile, number: int) -> Iterator[Map]:
    """Maps that have the type for values, for keys, or only in their BTF."""
    value, key = (4, hostile.size), (hostile.size, 4)
    kinds = [
        (MapType.ARRAY, value, (number, hostile.type_id)),
        (MapType.HASH, key, (hostile.type_id, number)),
        (MapType.ARRAY, (4, 4), (number, number)),
    ]
    for kind, sizes, ids in kinds:
        with contextlib.suppress(OSError):  # a key of so many bytes
            yield Map.create(
                kind, key_size=sizes[0], value_size=sizes[1], max_entries=2,
                flags=_NO_PREALLOC if kind == MapType.HASH else 0,
                btf=blob, key_type=ids[0], value_type=ids[1],
            )  # fmt: skip


def look_around(directory: Path) -> None:
    """Read all that is shown of a map, and write some of it back."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and os.access(path, os.R_OK):
            path.read_bytes()
    for path in list((directory / "entries").iterdir())[:1]:
        path.write_bytes(path.read_bytes())
    lines = directory / "entries.jsonl"
    lines.write_bytes(lines.read_bytes())


@pytest.mark.soak(short=3)
def test_a_mount_of_maps_with_such_types(
    mounted: Mount, sample: Map, span: float, figure: Figure
) -> None:
    # Those that were worst come first, for there may be no time for the others.
    worst = ["long tags", "enumerations", "structs", "bitfields"]
    names = worst + [name for name in MAKERS if name not in worst]
    seen = 0
    with Bystander(mounted.path / "sample/entries/1", mounted.process.pid) as bystander:
        for turn in passing(span, least=len(worst)):
            types = BtfBuilder()
            hostile = MAKERS[names[turn % len(names)]](types)
            number = types.integer("number", 4, signed=True)
            with BtfObject.load(types.build()) as blob:
                for bpf_map in maps_of(blob, hostile, number):
                    with bpf_map:
                        if bpf_map.info.type == MapType.HASH:
                            bpf_map.update(b"\xff" * hostile.size, u32(1))
                        mounted.pin("hostile", bpf_map)
                    look_around(mounted.path / "hostile")
                    (mounted.path / "hostile").rmdir()
                    seen += 1
                (mounted.path / f".by-id/btfs/{blob.info.id}/types.h").read_bytes()
    memory = int(Path(f"/proc/{mounted.process.pid}/statm").read_text().split()[1]) >> 8
    figure("maps with hostile types read and written", seen)
    figure("longest wait of a bystander, ms", round(bystander.longest * 1000))
    figure("the daemon's work meanwhile, ms", round(bystander.busiest * 1000))
    figure("memory of the daemon after that, MiB", memory)
    assert bystander.busiest < LONGEST
    assert memory < 300
    assert sample.lookup(u32(1)) == u64(500)


def test_what_is_too_large_is_said(mounted: Mount) -> None:
    types = BtfBuilder()
    hostile = MAKERS["enumerators, and more"](types)
    number = types.integer("number", 4)
    with BtfObject.load(types.build()) as blob:
        mounted.pin("sample", next(maps_of(blob, hostile, number))).close()
    told = (mounted.path / "sample/info").read_text()
    assert 'btf_problem: "the BTF of this map cannot be read: type 1 has 65535 members' in told
    assert (mounted.path / "sample/entries/0").read_text() == '"00000000"\n'


def test_strings_are_cut() -> None:
    types = BtfBuilder()
    made = types.decl_tag("x" * 10_000, types.struct("s", 4, []))
    tag = Btf.parse(types.build()).type(made)
    assert getattr(tag, "name", "") == "x" * 4096


def test_a_blob_that_is_too_large_is_not_read() -> None:
    types = BtfBuilder()
    MAKERS["too many types"](types)
    with BtfObject.load(types.build()) as blob, pytest.raises(BtfError, match="more than 2097152"):
        blob.parse()


def test_words_that_end_in_white_space_name_keys() -> None:
    types = BtfBuilder()
    mode = types.enum("mode", 4, [(" off\u3000", 0), ("on", 1)])
    made = types.struct("key", 4, [(" field ", mode, 0)])
    codec = compile_codec(Btf.parse(types.build()), made)
    for number in (0, 1):
        assert from_name(codec, to_name(codec, u32(number))) == u32(number)
