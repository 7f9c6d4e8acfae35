"""Entries of all six types of maps, read and changed with the tools of every day."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.maps import ARRAYS, HASHES, SIX, dump, make_map, u32, u64, value_of
from support.mounting import Mount

from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType

CPUS = possible_cpus()
each_type = pytest.mark.parametrize("kind", SIX, ids=lambda kind: kind.name.lower())
each_hash = pytest.mark.parametrize("kind", HASHES, ids=lambda kind: kind.name.lower())
each_array = pytest.mark.parametrize("kind", ARRAYS, ids=lambda kind: kind.name.lower())


def filled(mounted: Mount, kind: MapType) -> Map:
    """A map with 0: 100, 1: 101, 2: 102, pinned as `sample`."""
    sample = make_map(kind, max_entries=3 if kind in ARRAYS else 64)
    for number in range(3):
        sample.update(u32(number), value_of(sample, 100 + number))
    return mounted.pin("sample", sample)


def shown(bpf_map: Map, number: int) -> str:
    """What an entry's file shows for a value."""
    return json.dumps([number] * CPUS if bpf_map.per_cpu else number) + "\n"


@each_type
def test_ls_and_cat(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    assert sorted(mounted.sh("ls sample/entries").stdout.split()) == ["0", "1", "2"]
    assert mounted.sh("cat sample/entries/[0-2]").stdout == "".join(
        shown(sample, 100 + number) for number in range(3)
    )
    sizes = mounted.sh("cd sample/entries; for f in *; do stat -c %s $f; wc -c < $f; done")
    assert sizes.stdout.split() == [str(len(shown(sample, 100)))] * 6
    assert mounted.sh("cat sample/count").stdout == "3\n"


@each_type
@pytest.mark.parametrize(
    "command",
    [
        "echo 7 > FILE",
        "echo 7 >> FILE",
        "printf 7 > FILE",
        "echo 0x7 | tee FILE > /dev/null",
        "echo 7 | dd of=FILE status=none",
        "echo 7 | dd of=FILE bs=1 status=none",
        "echo 7 | dd of=FILE conv=notrunc status=none",
        "echo 7 > /tmp/$$.new; cp /tmp/$$.new FILE; code=$?; rm /tmp/$$.new; exit $code",
        'python3 -c \'import sys; open(sys.argv[1], "w").write("7")\' FILE',
        "echo 7 1<> FILE",
        "truncate -s 0 FILE && echo 7 > FILE",
        "exec 3> FILE; echo 5 >&3; echo 7 >&3",
    ],
)
def test_a_value_is_set(mounted: Mount, kind: MapType, command: str) -> None:
    sample = filled(mounted, kind)
    before = dump(sample)
    result = mounted.sh(command.replace("FILE", "sample/entries/1"))
    assert (result.code, result.stderr) == (0, ""), result
    assert dump(sample) == before | {u32(1): value_of(sample, 7)}
    assert mounted.sh("cat sample/entries/1").stdout == shown(sample, 7)
    assert mounted.sh("stat -c %s sample/entries/1").stdout == f"{len(shown(sample, 7))}\n"
    assert mounted.error_log("sample") == ""


@each_type
def test_what_is_read_can_be_written_back(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    before = dump(sample)
    result = mounted.sh('cd sample/entries; for f in *; do v=$(cat $f); echo "$v" > $f; done')
    assert result.code == 0, result
    assert mounted.sh("cd sample/entries; cp 0 /tmp/$$; cat /tmp/$$ > 0; rm /tmp/$$").code == 0
    assert dump(sample) == before


@each_hash
def test_entries_are_made_copied_moved_and_removed(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    result = mounted.sh(
        "cd sample/entries; echo 9 > 10; cp 10 11; mv 0 12; mv 1 2; rm 10; ls | sort -n"
    )
    assert (result.code, result.stdout.split()) == (0, ["2", "11", "12"]), result
    assert dump(sample) == {
        u32(2): value_of(sample, 101),
        u32(11): value_of(sample, 9),
        u32(12): value_of(sample, 100),
    }
    assert mounted.sh("rm sample/entries/10").stderr.endswith("No such file or directory\n")
    assert mounted.sh("cat sample/count").stdout == "3\n"


@each_hash
def test_an_entry_is_made_only_with_its_first_value(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    before = dump(sample)
    file = mounted.path / "sample/entries/50"
    with file.open("w") as opened:
        assert dump(sample) == before
        opened.write("4\n")
        assert dump(sample) == before
        opened.flush()
        assert dump(sample) == before | {u32(50): value_of(sample, 4)}


@each_hash
def test_a_file_without_a_value_leaves_no_name(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    before = dump(sample)
    for command in ("true > 50", "touch 51", "cp /dev/null 52", "exec 3> 53"):
        mounted.sh(f"cd sample/entries && {command}")
        assert dump(sample) == before
        result = mounted.sh("cd sample/entries && ls; ls 50 51 52 53")
        assert sorted(result.stdout.split()) == ["0", "1", "2"], command


@each_hash
def test_exclusive_creation(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    assert mounted.sh("set -C; echo 5 > sample/entries/20").code == 0
    taken = mounted.sh("set -C; echo 6 > sample/entries/20")
    assert taken.code == 1
    assert "cannot overwrite existing file" in taken.stderr
    with (mounted.path / "sample/entries/21").open("x") as file:
        sample.update(u32(21), value_of(sample, 1))  # somebody else was faster
        with pytest.raises(FileExistsError):
            os.write(file.fileno(), b"2\n")
    assert dump(sample)[u32(20)] == value_of(sample, 5)
    assert dump(sample)[u32(21)] == value_of(sample, 1)
    assert "File exists" in mounted.error_log("sample")


@each_array
def test_indices_of_an_array_can_be_neither_made_nor_removed(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    before = dump(sample)
    for command in ("rm 0", "mv 0 1", "mv 0 5", "unlink 2"):
        result = mounted.sh(f"cd sample/entries && {command}")
        assert result.code == 1, command
        assert "Operation not permitted" in result.stderr
    # The directory's mode says so, too.
    assert mounted.sh("stat -c %A sample/entries").stdout == "drwx------\n"  # to save in place
    assert dump(sample) == before


@each_type
def test_other_spellings_find_the_same_file(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    result = mounted.sh("cd sample/entries; cat 0x2; echo 5 > 0x2; cat 2; stat -c %i 2 0x2 | uniq")
    assert result.stdout.startswith(shown(sample, 102) + shown(sample, 5)), result
    assert result.stdout.count("\n") == 3
    assert "0x2" not in os.listdir(mounted.path / "sample/entries")


@each_type
def test_entries_jsonl_and_jq(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    lines = (mounted.path / "sample/entries.jsonl").read_text().splitlines()
    entries = sorted((json.loads(line) for line in lines), key=lambda entry: int(entry["key"]))
    value = json.loads(shown(sample, 100))
    assert entries[0] == {"key": 0, "value": value}
    assert [entry["key"] for entry in entries] == [0, 1, 2]
    result = mounted.sh("jq -c 'select(.key == 2) | .value' sample/entries.jsonl")
    assert json.loads(result.stdout) == json.loads(shown(sample, 102))


@pytest.mark.parametrize("kind", [MapType.PERCPU_ARRAY, MapType.PERCPU_HASH])
def test_each_cpu_has_its_own_value(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    numbers = list(range(40, 40 + CPUS))
    assert mounted.sh(f"echo '{json.dumps(numbers)}' > sample/entries/1").code == 0
    assert sample.lookup(u32(1)) == b"".join(u64(number) for number in numbers)
    assert mounted.sh("cat sample/entries/1").stdout == json.dumps(numbers) + "\n"
    for wrong in (numbers[1:], [*numbers, 1]):
        assert mounted.sh(f"echo '{json.dumps(wrong)}' > sample/entries/1").code == 1
    assert sample.lookup(u32(1)) == b"".join(u64(number) for number in numbers)


def test_the_kernel_changes_are_seen_at_once(mounted: Mount) -> None:
    sample = filled(mounted, MapType.HASH)
    file = mounted.path / "sample/entries/1"
    with file.open("rb", buffering=0) as opened:
        assert opened.read(100) == b"101\n"
        for number in range(200):
            sample.update(u32(1), u64(number * 1000))
            assert file.read_text() == f"{number * 1000}\n"
            opened.seek(0)
            assert opened.read(100) == b"%d\n" % (number * 1000)
            # The size at open is that of what is then read, whatever it was a moment ago.
            with file.open("rb") as again:
                assert os.fstat(again.fileno()).st_size == len(again.read())


def test_an_open_file_shows_one_consistent_value(mounted: Mount) -> None:
    sample = filled(mounted, MapType.HASH)
    sample.update(u32(1), u64(1234567890))
    with (mounted.path / "sample/entries/1").open("rb", buffering=0) as file:
        assert file.read(5) == b"12345"
        sample.update(u32(1), u64(9999999999999))
        assert file.read() == b"67890\n"


def test_mtime_moves_when_the_value_does_and_only_then(mounted: Mount) -> None:
    sample = filled(mounted, MapType.HASH)
    file = mounted.path / "sample/entries/1"

    def read() -> int:
        file.read_text()
        return os.stat(file).st_mtime_ns

    first = read()
    assert first > 0
    assert {read() for _ in range(10)} == {first}
    sample.update(u32(1), u64(5))
    second = read()
    assert second > first
    assert {read() for _ in range(10)} == {second}


def test_a_struct_takes_its_fields_one_by_one(mounted: Mount) -> None:
    mounted.pin("config", make_map(MapType.ARRAY, value="config", max_entries=2))
    result = mounted.sh(
        "cd config/entries; cat 0; echo '{enabled: true, port: 443}' > 0;"
        ' echo \'{"mode": "MODE_BLOCK", "label": "two words"}\' > 0; echo "{mode: 1}" > 1; cat 0 1'
    )
    off = {"enabled": False, "mode": "MODE_OFF", "port": 0, "label": ""}
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        off,
        {"enabled": True, "mode": "MODE_BLOCK", "port": 443, "label": "two words"},
        off | {"mode": "MODE_WATCH"},
    ], result
    file = mounted.path / "config/entries/1"
    file.write_text(json.dumps({**off, "port": 80}, indent=4) + "\n")
    assert json.loads(file.read_text()) == off | {"port": 80}


def test_keys_of_other_types_than_numbers(mounted: Mount) -> None:
    keys = {"address": "10.1.2.3", "be16": "443", "text": "two words", "pair": "first=1,second=-2"}
    keys |= {"s32": "-5", "u8": "255"}
    for key, name in keys.items():
        sample = mounted.pin(key, make_map(key=key))
        file = mounted.path / key / "entries" / name
        file.write_text("1\n")
        assert os.listdir(file.parent) == [name]
        assert file.read_text() == "1\n"
        assert len(dump(sample)) == 1
        os.unlink(file)
        assert dump(sample) == {}


def test_names_that_need_escapes(mounted: Mount) -> None:
    sample = mounted.pin("names", make_map(key="text"))
    texts = [b"a/b", b".hidden", b"4913", b"x~", b"sedAb12Cd", b"new\nline", b"\xff\xfe", b"%41"]
    texts += [b"", b"..", b"=,{}", b"raw=", "ü".encode(), b"sixteen bytes 16", b"a\0b"]
    for number, text in enumerate(texts):
        sample.update(text.ljust(16, b"\0"), u64(number))
    directory = mounted.path / "names/entries"
    names = os.listdir(directory)
    assert len(names) == len(set(names)) == len(texts)
    read = {int((directory / name).read_text()) for name in names}
    assert read == set(range(len(texts)))
    assert mounted.sh("rm names/entries/*").code == 0
    assert dump(sample) == {}


def test_without_types_there_are_hexadecimal_digits(mounted: Mount) -> None:
    sample = mounted.pin("raw", make_map(key=4, value=6))
    sample.update(bytes.fromhex("0a0b0c0d"), bytes.fromhex("010203040506"))
    assert mounted.sh("ls raw/entries; cat raw/entries/*").stdout == '0a0b0c0d\n"010203040506"\n'
    assert mounted.sh("echo 060504030201 > raw/entries/0a0b0c0d").code == 0
    assert dump(sample) == {bytes.fromhex("0a0b0c0d"): bytes.fromhex("060504030201")}


def test_an_entry_that_somebody_else_removes(mounted: Mount) -> None:
    sample = filled(mounted, MapType.HASH)
    file = mounted.path / "sample/entries/1"
    file.read_text()
    with file.open("r+b", buffering=0) as opened:
        sample.delete(u32(1))
        with pytest.raises(FileNotFoundError):
            file.read_text()
        assert os.fstat(opened.fileno()).st_size
        with pytest.raises(FileNotFoundError):  # what was removed does not come back
            opened.write(b"8\n")
    with pytest.raises(FileNotFoundError):
        sample.lookup(u32(1))


@pytest.mark.parametrize("tool", ["gzip -c", "file -b", "tar -cO", "head -c 2", "tail -n 1", "od"])
def test_other_tools_read_entries_as_any_file(mounted: Mount, tmp_path: Path, tool: str) -> None:
    filled(mounted, MapType.HASH)
    copy = tmp_path / "1"
    copy.write_text("101\n")
    os.utime(copy, ns=(0, os.stat(mounted.path / "sample/entries/1").st_mtime_ns))
    unlike = "| tail -c +513 " if tool.startswith("tar") else ""  # modes and inodes differ
    from_mount = mounted.sh(f"cd sample/entries && {tool} 1 {unlike}| sha256sum")
    assert from_mount.code == 0
    from_copy = mounted.sh(f"cd {tmp_path} && {tool} 1 {unlike}| sha256sum")
    assert from_mount == from_copy


@each_hash
def test_a_new_entry_by_the_old_name_of_another(mounted: Mount, kind: MapType) -> None:
    sample = filled(mounted, kind)
    entries = mounted.path / "sample/entries"
    # The kernel takes the new name for one of the old inode, for a moment.
    for number in range(10, 20):
        os.rename(entries / "1", entries / str(number))
        (entries / "1").write_text(f"{number}\n")
        (entries / str(number)).write_text(f"{2 * number}\n")
        assert os.stat(entries / "1").st_ino != os.stat(entries / str(number)).st_ino
        assert os.stat(entries / "0x1").st_ino == os.stat(entries / "1").st_ino
    assert dump(sample) == {
        u32(0): value_of(sample, 100),
        u32(1): value_of(sample, 19),
        u32(2): value_of(sample, 102),
        **{u32(number): value_of(sample, 2 * number) for number in range(10, 20)},
    }


def test_a_renamed_entry_that_had_been_gone_before(mounted: Mount) -> None:
    sample = filled(mounted, MapType.HASH)
    entries = mounted.path / "sample/entries"
    for number in range(10, 20):
        os.stat(entries / "1")
        sample.delete(u32(1))
        with pytest.raises(FileNotFoundError):  # the kernel takes it for there, and asks twice
            (entries / "1").read_text()
        (entries / "1").write_text("5\n")
        os.stat(entries / "1")
        os.rename(entries / "1", entries / str(number))
        assert (entries / str(number)).read_text() == "5\n"
        (entries / "1").write_text("6\n")
