"""What is refused: the user is told, the log says why and where, and nothing changes."""

from __future__ import annotations

import errno
import os
import re

import pytest
from support.maps import SIX, dump, exists, make_map, u32, u64, value_of
from support.mounting import Mount
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType


def sample_of(mounted: Mount, kind: MapType, value: str = "u64", key: str = "u32") -> Map:
    """A pinned map of which the entry 1 is 101, when the types are integers."""
    sample = make_map(kind, key=key, value=value, max_entries=4)
    if value == "u64" and key == "u32":
        sample.update(u32(1), value_of(sample, 101))
    return mounted.pin("sample", sample)


def refused(mounted: Mount, bpf_map: Map, command: str, error: str, *reasons: str) -> None:
    """A command in the directory of entries fails, changes nothing, and the log says why."""
    before = dump(bpf_map)
    mounted.error_log("sample")
    result = mounted.sh(f"cd sample/entries && {command}")
    assert result.code == 1, result
    assert result.stderr.rstrip().endswith(error), result
    assert dump(bpf_map) == before
    log = mounted.error_log("sample")
    for reason in reasons:
        assert reason in log, log


def column(log: str) -> int:
    """Where the mark in an error log points to."""
    return len(log.splitlines()[-1]) - len("    ^")


@pytest.mark.parametrize("kind", SIX, ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize(
    "text",
    ["twelve", "1x", "-1", "18446744073709551616", "1 2", "1.5", "1e3", '"x', "{}", "[]", "null"],
)
def test_no_number(mounted: Mount, kind: MapType, text: str) -> None:
    sample = sample_of(mounted, kind)
    refused(mounted, sample, f"echo '{text}' > 1", "Invalid argument", "write entries/1: ", text)


@pytest.mark.parametrize(
    ("value", "text", "reason"),
    [
        ("u32", "4294967296", "4294967296"),
        ("u32", "-1", "-1"),
        ("u8", "256", "256"),
        ("s32", "2147483648", "2147483648"),
        ("s32", "-2147483649", "-2147483649"),
        ("be16", "65536", "65536"),
        ("address", "10.0.0.256", "10.0.0.256"),
        ("address", "10.0.0", "10.0.0"),
        ("text", '"seventeen letters"', "16"),
        ("config", '{"speed": 1}', "speed"),
        ("config", '{"port": 1, "port": 2}', "port"),
        ("config", '{"port": 65536}', "port"),
        ("config", '{"mode": "MODE_NONE"}', "MODE_NONE"),
        ("config", '{"enabled": 256}', "enabled"),
        ("config", '{"enabled": true} more', "more"),
        ("config", "[1, 2]", "config"),
        ("config", "5", "config"),
        ("pair", '{"first": {"deep": 1}}', "first"),
    ],
)
def test_a_value_that_the_type_does_not_have(
    mounted: Mount, value: str, text: str, reason: str
) -> None:
    sample = sample_of(mounted, MapType.ARRAY, value)
    refused(mounted, sample, f"echo '{text}' > 1", "Invalid argument", reason)
    sample = mounted.pin("other", make_map(value=value))
    assert mounted.sh(f"echo '{text}' > other/entries/1").code == 1
    assert dump(sample) == {}


def test_the_log_shows_the_place(mounted: Mount) -> None:
    sample_of(mounted, MapType.ARRAY, "config")
    text = '{"enabled": true, "port": 80, "mode": "MODE_NONE"}'
    assert mounted.sh(f"echo '{text}' > sample/entries/2").code == 1
    log = mounted.error_log("sample")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ write entries/2: mode: ", log)
    assert text in log
    assert text[column(log) :].startswith('"MODE_NONE"'), log


@pytest.mark.parametrize("text", ["{", '{"port": 80', '{"port": 80,', "["])
def test_half_an_object(mounted: Mount, text: str) -> None:
    sample = sample_of(mounted, MapType.ARRAY, "config")
    before = dump(sample)
    with pytest.raises(OSError) as caught, (mounted.path / "sample/entries/1").open("w") as file:
        file.write(text + "\n")
    assert caught.value.errno == errno.EINVAL
    assert dump(sample) == before
    assert "the text ends within" in mounted.error_log("sample")


def test_half_an_object_on_a_line_of_its_own_fails_in_the_shell(mounted: Mount) -> None:
    sample = sample_of(mounted, MapType.ARRAY, "config")
    refused(mounted, sample, "echo '{\"port\": 80' > 1", "Invalid argument", "within an object")


def test_a_megabyte_of_noise(mounted: Mount) -> None:
    sample = sample_of(mounted, MapType.HASH)
    for source in ("/dev/urandom", "/dev/zero"):
        command = f"head -c 1M {source} > 1"
        refused(mounted, sample, command, "Invalid argument", "write entries/1")
    noise = "yes '[1, ' | head -c 1M > 1"
    assert mounted.sh(f"cd sample/entries && {noise}").code == 1
    assert dump(sample) == {u32(1): u64(101)}
    assert len(mounted.error_log("sample")) < 10_000
    assert mounted.sh("cat sample/entries/1").stdout == "101\n"


@pytest.mark.parametrize("command", ["true > 1", "printf '' > 1", "truncate -s 0 1", ": >> 1"])
def test_an_empty_write_changes_nothing(mounted: Mount, command: str) -> None:
    sample = sample_of(mounted, MapType.HASH)
    assert mounted.sh(f"cd sample/entries && {command}").code == 0
    assert dump(sample) == {u32(1): u64(101)}


def test_a_character_that_is_cut_off(mounted: Mount) -> None:
    sample = mounted.pin("text", make_map(MapType.ARRAY, value="text", max_entries=1))
    assert mounted.sh("echo grün > text/entries/0; cat text/entries/0").stdout == '"grün"\n'
    before = dump(sample)
    assert mounted.sh("printf 'gr\\xc3\\n' > text/entries/0").code == 1
    mounted.sh("printf 'gr\\xc3' > text/entries/0")
    assert dump(sample) == before
    assert "UTF-8" in mounted.error_log("text")


def test_blank_lines_between_values_on_one_descriptor(mounted: Mount) -> None:
    sample = sample_of(mounted, MapType.HASH)
    result = mounted.sh("exec 3> sample/entries/1; echo 5 >&3; echo >&3; echo 6 >&3")
    assert (result.code, result.stderr) == (0, "")
    assert sample.lookup(u32(1)) == u64(6)


def test_an_empty_line_is_no_value(mounted: Mount) -> None:
    sample = sample_of(mounted, MapType.HASH)
    refused(mounted, sample, "echo > 1", "Invalid argument", "write entries/1: ")


@pytest.mark.parametrize("name", ["x", "4294967296", "-1", "1.5", "1x", "{}"])
def test_a_name_that_is_no_key(mounted: Mount, name: str) -> None:
    sample = sample_of(mounted, MapType.HASH)
    refused(mounted, sample, f"echo 5 > '{name}'", "Invalid argument", f"create entries/{name}: ")
    assert mounted.sh(f"cat 'sample/entries/{name}'").stderr.endswith("No such file or directory\n")
    refused(mounted, sample, f"mv -- 1 '{name}'", "Operation not permitted", name)


@pytest.mark.parametrize("kind", [MapType.ARRAY, MapType.PERCPU_ARRAY])
def test_an_index_past_the_end(mounted: Mount, kind: MapType) -> None:
    sample = sample_of(mounted, kind)
    for index in ("4", "0x10", "4294967295"):
        refused(mounted, sample, f"echo 5 > {index}", "Invalid argument", "past the end")


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.PERCPU_HASH])
def test_a_full_map(mounted: Mount, kind: MapType) -> None:
    sample = sample_of(mounted, kind)
    for number in range(4):
        sample.update(u32(number), value_of(sample, number))
    refused(mounted, sample, "echo 5 > 10", "No space left on device", "the map is full")
    refused(mounted, sample, "cp 1 10", "No space left on device", "the map is full")
    refused(mounted, sample, "mv 1 10", "No space left on device", "the map is full")
    assert mounted.sh("echo 5 > sample/entries/1").code == 0


@pytest.mark.parametrize("kind", [MapType.ARRAY, MapType.PERCPU_ARRAY])
def test_an_array_keeps_its_entries(mounted: Mount, kind: MapType) -> None:
    sample = sample_of(mounted, kind)
    refused(mounted, sample, "rm 1", "Operation not permitted", "remove entries/1: ", "array")
    refused(mounted, sample, "mv 1 2", "Operation not permitted", "rename entries/1 to 2: ")


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.ARRAY, MapType.PERCPU_HASH])
def test_a_frozen_map(mounted: Mount, kind: MapType) -> None:
    sample = sample_of(mounted, kind)
    with (mounted.path / "sample/entries/1").open("w") as early:
        assert mounted.sh(
            "cat sample/frozen; echo 1 > sample/frozen; cat sample/frozen"
        ).stdout == ("0\n1\n")
        assert sample.frozen()
        refused(mounted, sample, "echo 5 > 1", "Operation not permitted", "the map is frozen")
        refused(mounted, sample, "rm 1", "Operation not permitted")
        with pytest.raises(PermissionError):
            os.write(early.fileno(), b"5\n")
    if kind != MapType.ARRAY:
        refused(mounted, sample, "echo 5 > 2", "Operation not permitted", "the map is frozen")
    assert mounted.sh("cat sample/entries/1").code == 0
    eventually(
        "its mode says so",
        lambda: os.stat(mounted.path / "sample/entries/1").st_mode == 0o100400,
        1,
    )


def test_what_is_frozen_shows_it_at_once(mounted: Mount) -> None:
    sample = sample_of(mounted, MapType.HASH)
    result = mounted.sh(
        "cd sample && echo 1 > frozen && ls -ld . frozen entries entries/1; touch entries/2"
    )
    assert result.stderr.endswith("Operation not permitted\n"), result
    modes = {line.split()[-1]: line.split()[0] for line in result.stdout.splitlines()}
    assert modes == {
        ".": "drwx------",
        "frozen": "-r--------",
        "entries": "dr-x------",
        "entries/1": "-r--------",
    }
    assert dump(sample) == {u32(1): u64(101)}
    assert "create entries/2: the map is frozen" in mounted.error_log("sample")


def test_a_map_that_somebody_else_freezes(mounted: Mount) -> None:
    sample = sample_of(mounted, MapType.HASH)
    assert mounted.sh("echo 5 > sample/entries/1").code == 0
    sample.freeze()
    refused(mounted, sample, "echo 6 > 1", "Operation not permitted", "write entries/1")
    refused(mounted, sample, "echo 6 > 2", "Operation not permitted", "entries/2")


def test_a_frozen_map_stays_frozen(mounted: Mount) -> None:
    sample = sample_of(mounted, MapType.HASH)
    for text in ("yes", "2", "-1", "", "0 1"):
        assert mounted.sh(f"echo '{text}' > sample/frozen").code == 1, text
    assert mounted.sh("echo 0 > sample/frozen").code == 0
    assert not sample.frozen()
    assert mounted.sh("echo 1 > sample/frozen").code == 0
    assert mounted.sh("echo 0 > sample/frozen").code == 1
    assert sample.frozen()


def test_a_pin_that_vanishes_while_its_file_is_open(mounted: Mount) -> None:
    sample = sample_of(mounted, MapType.HASH)
    file = mounted.path / "sample/entries/1"
    with file.open("r+b", buffering=0) as opened:
        os.unlink(mounted.source / "sample")
        with pytest.raises(FileNotFoundError):
            file.read_text()
        assert opened.read(100) == b"101\n"
        opened.seek(0)
        opened.write(b"5\n")
        assert sample.lookup(u32(1)) == u64(5)
        opened.seek(0)
        assert opened.read(100) == b"5\n"
        with pytest.raises(OSError):
            opened.seek(0)
            opened.write(b"x\n")
        number = sample.info.id
        sample.close()
        assert exists(Map, number)
    eventually("the object is gone", lambda: not exists(Map, number), 1)


def test_clearing_the_log(mounted: Mount) -> None:
    sample_of(mounted, MapType.HASH)
    for command in (
        "echo > error_log",
        ": > error_log",
        "truncate -s 0 error_log",
        "true > error_log; echo x >> error_log",
        "echo 0 | tee error_log",
    ):
        assert mounted.sh("echo x > sample/entries/1").code == 1
        with (mounted.path / "sample/error_log").open("rb") as log:
            assert os.fstat(log.fileno()).st_size == len(log.read()) > 0
        assert mounted.sh(f"cd sample && {command}").code == 0
        assert (mounted.path / "sample/error_log").read_text() == ""


def test_the_log_is_bounded(mounted: Mount) -> None:
    sample_of(mounted, MapType.HASH)
    mounted.sh("cd sample/entries; for n in {1..100}; do echo bad$n > 1; done")
    log = mounted.error_log("sample")
    assert "bad100" in log
    assert "bad1'" not in log
    assert 1 < log.count("write entries/1") < 100


def test_each_object_has_its_own_log(mounted: Mount) -> None:
    mounted.pin("a", make_map())
    mounted.pin("b", make_map())
    assert mounted.sh("echo x > a/entries/1").code == 1
    assert mounted.error_log("b") == ""
    assert "write entries/1" in mounted.error_log("a")


@pytest.mark.parametrize("name", ["info", "info.json", "count"])
def test_root_cannot_write_what_is_read_only(mounted: Mount, name: str) -> None:
    sample_of(mounted, MapType.HASH)
    assert mounted.sh(f"cat sample/{name}").code == 0
    result = mounted.sh(f"echo 1 > sample/{name}")
    assert result.stderr.endswith("Permission denied\n")
    assert mounted.sh(f"truncate -s 0 sample/{name}").code == 1
    assert mounted.sh(f"rm -f sample/{name}").stderr.endswith("Operation not permitted\n")
