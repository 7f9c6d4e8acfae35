"""Writing in pieces, as shells, tools and programs do: what is committed is what was meant."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.maps import HASHES, dump, make_map, u32, u64, value_of
from support.mounting import Mount
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType


@pytest.fixture
def entry(mounted: Mount, sample: Map) -> Path:
    """The entry 1."""
    return mounted.path / "sample/entries/1"


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor; an error of its close is raised if nothing else is."""
    fd = os.open(path, flags, 0o666)
    try:
        yield fd
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)


REFUSED_LATE = {
    "a comma, byte by byte": r"printf '12,000\n' | dd of=E bs=1",
    "garbage by another process": "(printf 1; printf garbage) > E",
    "too large with the last piece": "printf 99999999999999999999999 | dd of=E bs=10",
    "two numbers, byte by byte": r"printf '7 8\n' | dd of=E bs=1",
    "noise after a digit": r"printf '7\377\n' | dd of=E bs=1",
    "garbage, whatever comes next": "(printf 1; printf garbage; echo 2) > E",
}


@pytest.mark.parametrize("command", REFUSED_LATE.values(), ids=list(REFUSED_LATE))
def test_the_valid_beginning_of_a_refused_text_is_not_committed(
    mounted: Mount, sample: Map, command: str
) -> None:
    result = mounted.sh(f"cd sample/entries && {command.replace('E', '1')}")
    assert result.code == 1, result
    assert "Invalid argument" in result.stderr
    assert dump(sample) == {u32(1): u64(500)}
    assert "write entries/1: " in mounted.error_log("sample")
    assert mounted.sh("cd sample/entries && echo 7 > 1 && cat 1").stdout == "7\n"


@pytest.mark.parametrize("command", REFUSED_LATE.values(), ids=list(REFUSED_LATE))
def test_a_refused_text_makes_no_entry(mounted: Mount, sample: Map, command: str) -> None:
    assert mounted.sh(f"cd sample/entries && {command.replace('E', '2')}").code == 1
    assert dump(sample) == {u32(1): u64(500)}
    assert mounted.error_log("sample")


@pytest.mark.parametrize(
    "command",
    [
        "(printf 1; printf $(echo 2)) > E",
        "(printf 1; (printf 2)) > E",
        "printf 12 | dd of=E bs=1 status=none",
        "exec 3> E; printf 1 >&3; true; /bin/printf 2 >&3",
        "printf 1 > E; printf 500 | dd of=E status=none; printf 12 > E",
    ],
)
def test_processes_that_come_and_go_write_one_value(
    mounted: Mount, sample: Map, command: str
) -> None:
    result = mounted.sh(f"cd sample/entries && {command.replace('E', '1')}")
    assert (result.code, result.stderr) == (0, ""), result
    assert dump(sample) == {u32(1): u64(12)}
    assert mounted.error_log("sample") == ""


def test_fsync_between_two_writes(sample: Map, entry: Path) -> None:
    with opened(entry, os.O_WRONLY) as fd:
        os.write(fd, b"56")
        os.fsync(fd)
        assert sample.lookup(u32(1)) == u64(56)
        os.write(fd, b"78")
    assert sample.lookup(u32(1)) == u64(5678)


def test_a_copy_of_the_descriptor_is_closed_between_two_writes(sample: Map, entry: Path) -> None:
    with opened(entry, os.O_WRONLY) as fd:
        os.write(fd, b"56")
        os.close(os.dup(fd))
        assert sample.lookup(u32(1)) == u64(56)
        os.write(fd, b"78")
        os.close(os.dup(fd))
        os.write(fd, b"9\n")
        assert sample.lookup(u32(1)) == u64(56789)
        os.write(fd, b"4\n")  # after its newline, the next value begins
    assert sample.lookup(u32(1)) == u64(4)


@pytest.fixture
def config(mounted: Mount) -> Map:
    """A pinned array of structs."""
    return mounted.pin("config", make_map(MapType.ARRAY, value="config", max_entries=1))


def shown(mounted: Mount) -> dict[str, object]:
    """What the entry of `config` shows."""
    fields: dict[str, object] = json.loads((mounted.path / "config/entries/0").read_text())
    return fields


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("""{ printf '{"port": '; echo 80 | tr -d '\\n'; printf '}'; } > E""", {"port": 80}),
        (
            "exec 3> E; echo '{' >&3; echo '\"enabled\": true' >&3; echo '}' >&3; exec 3>&-",
            {"enabled": True},
        ),
        (
            "exec 3> E; echo '{' >&3; echo '\"enabled\": true,' >&3; echo '\"port\": 5' >&3;"
            " echo '}' >&3",
            {"enabled": True, "port": 5},
        ),
        ("""jq -n '{port: 81, label: "two words"}' > E""", {"port": 81, "label": "two words"}),
        ("""jq -n '{port: 81}' | dd of=E bs=1 status=none""", {"port": 81}),
    ],
)
def test_an_object_in_pieces(
    mounted: Mount, config: Map, command: str, expected: dict[str, object]
) -> None:
    before = shown(mounted)
    result = mounted.sh(f"cd config/entries && {command.replace('E', '0')}")
    assert result.code == 0, result
    assert shown(mounted) == before | expected


def test_an_object_that_goes_wrong_in_a_later_piece(mounted: Mount, config: Map) -> None:
    before = dump(config)
    command = """{ printf '{"port": 80'; printf ', "speed": 1'; echo '}'; } > config/entries/0"""
    assert mounted.sh(command).code == 1
    assert dump(config) == before
    assert "speed" in mounted.error_log("config")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("printf 9 | dd of=1 bs=1 seek=2 conv=notrunc status=none", 12945),
        ("printf 9 | dd of=1 bs=1 seek=5 conv=notrunc status=none", 123459),
        ("echo 99 1<> 1", 99),
    ],
)
def test_a_write_over_what_is_there(
    mounted: Mount, sample: Map, command: str, expected: int
) -> None:
    sample.update(u32(1), u64(12345))
    result = mounted.sh(f"cd sample/entries && {command}")
    assert (result.code, result.stderr) == (0, ""), result
    assert sample.lookup(u32(1)) == u64(expected)


def test_a_program_goes_back_in_what_it_wrote(sample: Map, entry: Path) -> None:
    with entry.open("w") as file:
        file.write("123")
        file.flush()
        file.seek(1)
        file.write("9")
    assert sample.lookup(u32(1)) == u64(193)


@pytest.mark.parametrize("kind", HASHES, ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("flags", [0, os.O_TRUNC, os.O_APPEND, os.O_CREAT | os.O_TRUNC])
def test_a_removed_entry_does_not_come_back(mounted: Mount, kind: MapType, flags: int) -> None:
    sample = mounted.pin("sample", make_map(kind))
    sample.update(u32(1), value_of(sample, 500))
    path = mounted.path / "sample/entries/1"
    with opened(path, os.O_WRONLY | flags) as fd:
        os.unlink(path)
        with pytest.raises(FileNotFoundError):
            os.write(fd, b"5\n")
    assert dump(sample) == {}
    assert os.listdir(path.parent) == []
    assert mounted.sh("echo 6 > sample/entries/1; cat sample/entries/1").code == 0
    mounted.error_log("sample")


def test_a_removed_entry_does_not_come_back_at_close(
    mounted: Mount, sample: Map, entry: Path
) -> None:
    with pytest.raises(FileNotFoundError), opened(entry, os.O_WRONLY) as fd:
        os.write(fd, b"5")
        sample.delete(u32(1))
    assert dump(sample) == {}
    assert "No such file or directory" in mounted.error_log("sample")


@pytest.mark.parametrize("kind", HASHES, ids=lambda kind: kind.name.lower())
def test_a_new_entry_that_somebody_else_made_in_between_is_set(
    mounted: Mount, kind: MapType
) -> None:
    sample = mounted.pin("sample", make_map(kind))
    with opened(mounted.path / "sample/entries/2", os.O_WRONLY | os.O_CREAT) as fd:
        sample.update(u32(2), value_of(sample, 1))
        os.write(fd, b"7\n")
        assert dump(sample) == {u32(2): value_of(sample, 7)}
    assert mounted.error_log("sample") == ""


def test_a_new_entry_that_was_removed_again_does_not_come_back(mounted: Mount, sample: Map) -> None:
    path = mounted.path / "sample/entries/2"
    with opened(path, os.O_WRONLY | os.O_CREAT) as fd:
        os.write(fd, b"5\n")
        os.unlink(path)
        with pytest.raises(FileNotFoundError):
            os.write(fd, b"6\n")
    assert dump(sample) == {u32(1): u64(500)}


def test_a_created_entry_can_be_looked_at_before_it_has_a_value(
    mounted: Mount, sample: Map
) -> None:
    """As sshfs does: it writes only to what it can look at (sshfs_open_common in sshfs.c)."""
    path = mounted.path / "sample/entries/2"
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
        assert path.stat().st_size == 0
        assert os.listdir(path.parent) == ["1"]
        with pytest.raises(FileNotFoundError):
            path.read_text()
    assert not path.exists()
    assert dump(sample) == {u32(1): u64(500)}


def test_a_created_entry_is_made_by_whoever_writes_first(mounted: Mount, sample: Map) -> None:
    path = mounted.path / "sample/entries/2"
    flags = os.O_WRONLY | os.O_CREAT
    with opened(path, flags) as one:
        with opened(path, flags | os.O_TRUNC) as other:
            os.write(other, b"6\n")
            assert path.read_text() == "6\n"
        os.write(one, b"7\n")
        assert path.read_text() == "7\n"
        path.unlink()
        assert not path.exists()


def test_a_created_entry_of_a_map_that_was_replaced_holds_up_nobody(mounted: Mount) -> None:
    path = mounted.path / "sample/entries/2"
    mounted.pin("sample", make_map())
    with opened(path, os.O_WRONLY | os.O_CREAT):
        (mounted.source / "sample").unlink()
        sample = mounted.pin("sample", make_map())
        eventually("the new one is seen", lambda: os.listdir(path.parent) == [])
        assert mounted.sh("echo 8 > sample/entries/2").code == 0
    assert dump(sample) == {u32(2): u64(8)}
