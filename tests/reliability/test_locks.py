"""Values with a `bpf_spin_lock`: whoever reads or writes them holds it, as programs do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.maps import u32
from support.mounting import Mount
from support.network import compile_program
from support.running import running
from support.sections import Loaded, load
from support.soaking import Figure, passing

WORDS = 254  # see locked.bpf.c


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("locked", tmp_path_factory.mktemp("programs"))


@pytest.fixture
def locking(mounted: Mount, compiled: Path) -> Iterator[Loaded]:
    """The program, loaded; its maps are filled through the mount."""
    loaded = load(mounted, compiled, "xdp")
    with loaded.program:
        for name in ("hash", "array"):
            for key in ("0", "1"):
                (entries(loaded, name) / key).write_text(line(0))
        yield loaded


def entries(loaded: Loaded, name: str) -> Path:
    return loaded.mount.path / "maps" / name / "entries"


def line(number: int) -> str:
    return json.dumps({"words": [number] * WORDS}) + "\n"


def is_torn(value: dict[str, list[int]]) -> bool:
    return len(set(value["words"])) != 1


def torn_in_the_program(loaded: Loaded) -> int:
    """How often the program has found a value of which another had changed a part."""
    with loaded.map("locked_bss") as variables:
        return int.from_bytes(variables.lookup(u32(0))[8:16], "little")


@pytest.mark.soak(short=0.4)
@pytest.mark.parametrize("name", ["hash", "array"])
def test_no_half_of_a_change_is_read(
    locking: Loaded, name: str, span: float, figure: Figure
) -> None:
    file = entries(locking, name) / "0"
    lines = entries(locking, name).with_name("entries.jsonl")
    seen: set[int] = set()
    values = 0
    with running(locking.program, 5000) as turns:
        for turn in passing(span):
            found = [json.loads(file.read_text())]
            if turn % 2 == 0:
                found += [json.loads(text)["value"] for text in lines.read_text().splitlines()]
            assert not [value for value in found if is_torn(value)], turns.count
            seen |= {value["words"][0] for value in found}
            values += len(found)
    assert len(seen) > 20  # the program was at work
    figure(f"values read of a {name} that a program changes under a lock", values)


@pytest.mark.soak(short=0.4)
@pytest.mark.parametrize("name", ["hash", "array"])
def test_no_half_of_a_change_is_written(
    locking: Loaded, name: str, span: float, figure: Figure
) -> None:
    file = entries(locking, name) / "0"
    lines = entries(locking, name).with_name("entries.jsonl")
    written = 0

    with running(locking.program, 5000):
        for turn in passing(span):
            if turn % 2 == 0:
                file.write_text(line(1 << 32 | turn))
            else:
                value = {"words": [1 << 33 | turn] * WORDS}
                lines.write_text(json.dumps({"key": 0, "value": value}) + "\n")
            written += 1
    assert torn_in_the_program(locking) == 0
    figure(f"values written to a {name} that a program changes under a lock", written)


def test_the_lock_is_neither_shown_nor_set(locking: Loaded) -> None:
    for name in ("hash", "array"):
        shown = json.loads((entries(locking, name) / "0").read_text())
        assert set(shown) == {"words", "unused"}
        with locking.map(name) as made:
            assert made.locked
            value = made.lookup(u32(0))
            assert value[WORDS * 8 :] == bytes(8)
            made.update(u32(1), b"\xff" * made.stride)
            assert made.lookup(u32(1))[WORDS * 8 :] == bytes(4) + b"\xff" * 4
