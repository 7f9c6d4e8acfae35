"""Writing lines to `entries.jsonl`: with real tools, as users restore and edit maps."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from support.maps import (
    ARRAYS,
    NO_PREALLOC,
    SIX,
    dump,
    each_key,
    make_map,
    u32,
    u64,
    value_of,
)
from support.mounting import Mount
from support.samples import Workshop, workshop
from support.waiting import eventually

from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType
from fusefs.tree.map_types import MAP_TYPES, Shape

SETTABLE = [
    k for k in MapType if (t := MAP_TYPES.get(k)) and t.shape == Shape.VALUES and not t.unset
]
OTHERS = [
    MapType.ARRAY_OF_MAPS,
    MapType.PROG_ARRAY,
    MapType.DEVMAP,
    MapType.SOCKMAP,
    MapType.STACK_TRACE,
    MapType.TASK_STORAGE,
    MapType.STRUCT_OPS,
]
MANY = 100_000
Mounter = Callable[..., Mount]


def each(kinds: list[MapType]) -> pytest.MarkDecorator:
    """A test of each of these types."""
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name.lower())


def text_of(entries: dict[int, int]) -> str:
    """The lines of keys and values, as jq writes them."""
    return "".join(f'{{"key":{key},"value":{value}}}\n' for key, value in entries.items())


def numbers(sample: Map) -> dict[int, int]:
    """What is in a map from u32 to u64."""
    return {
        int.from_bytes(key, "little"): int.from_bytes(value, "little")
        for key, value in dump(sample).items()
    }


@pytest.fixture
def sample(mounted: Mount) -> Map:
    """A map of three entries; `backup` beside it has others."""
    made = mounted.pin("sample", make_map())
    for number in range(3):
        made.update(u32(number), u64(100 + number))
    return made


OLD = {0: 100, 1: 101, 2: 102}
NEW = {1: 11, 3: 33, 50: 5}


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A file of lines to be written."""
    path = tmp_path / "backup"
    path.write_text(text_of(NEW))
    return path


WAYS = [
    "cat {} > sample/entries.jsonl",
    "cat {} >> sample/entries.jsonl",
    "cat {} | tee sample/entries.jsonl > /dev/null",
    "cat {} | tee -a sample/entries.jsonl > /dev/null",
    "cp {} sample/entries.jsonl",
    "cp -p {} sample/entries.jsonl",
    "dd if={} of=sample/entries.jsonl status=none",
    "dd if={} of=sample/entries.jsonl status=none bs=1",
    "dd if={} of=sample/entries.jsonl status=none bs=7 conv=notrunc,fsync",
    "rsync --inplace {} sample/entries.jsonl",
    "jq -c . {} > sample/entries.jsonl",
    "jq -c . {} 1<> sample/entries.jsonl",
    "while read -r line; do echo $line; done < {} > sample/entries.jsonl",
    "while read -r line; do echo $line >> sample/entries.jsonl; done < {}",
    "python3 -c 'from sys import argv as a; open(a[2], \"w\").write(open(a[1]).read())' {} "
    "sample/entries.jsonl",
    "(head -n 1 {}; tail -n +2 {}) > sample/entries.jsonl",
    "(head -n 1 {}; tail -n +2 {}) >> sample/entries.jsonl",
    'printf %s "$(cat {})" > sample/entries.jsonl',
    "sed 's/:/ : /g; s/$/\\r\\n/' {} > sample/entries.jsonl",
]


@pytest.mark.parametrize("way", WAYS)
def test_tools_that_write(mounted: Mount, sample: Map, backup: Path, way: str) -> None:
    result = mounted.sh(way.format(*[backup] * 2))
    assert (result.code, result.stderr) == (0, "")
    assert numbers(sample) == OLD | NEW


@pytest.mark.parametrize(
    "line",
    [
        '{"key": 3, "value": 33}',
        '  {"value" : 33, "key":3 }',
        "{key: 0x3, value: 0x21}",
        '{"key": "3", "value": "0b100001"}',
        '\t{key: 03,\tvalue: "33"}\r',
        '{"k\\u0065y": 3, "value": 33}',
    ],
)
def test_lines_may_be_written_as_people_type(mounted: Mount, sample: Map, line: str) -> None:
    given = f"\n{line}\n  \n".encode()
    assert mounted.sh("cat > sample/entries.jsonl", given).code == 0
    assert numbers(sample) == OLD | {3: 33}


BAD = {
    '{"key": 1, "value": x}': "value: expected an integer (__u64), got 'x'",
    '{"key": 1, "value": -1}': "value: -1 is out of range for __u64",
    '{"key": 4294967296, "value": 1}': "key: 4294967296 is out of range for __u32",
    '{"key": 1}': 'there is no value, as in {"key": …, "value": …}',
    '{"value": 1}': "there is no key",
    '{"key": 1, "value": 1, "values": 2}': "'values' is neither key nor value",
    '{"key": 1, "value": 1, "key": 2}': "'key' is given twice",
    '{"key": 1, "value": 1} 5': "'5' follows the value",
    '{"key": 1, "value": [1]}': "value: expected __u64, got an array",
    '{"key": 1, "value": 1': "the text ends within an object",
    "[1, 1]": "expected a line like",
    "1": "expected a line like",
    '{"key": 1, "value": "\xff"}': "is not UTF-8",
}


@pytest.mark.parametrize("line", BAD)
@pytest.mark.parametrize("before", [0, 1, 7000])
def test_a_bad_line_changes_nothing(mounted: Mount, sample: Map, line: str, before: int) -> None:
    lines = [b'{"key": 9, "value": 9}'] * before + [
        line.encode("latin-1" if "\xff" in line else "utf-8")
    ]
    given = b"\n".join([*lines, b'{"key": 10, "value": 10}', b""])
    result = mounted.sh("cat > sample/entries.jsonl", given)
    assert result.code == 1
    assert "Invalid argument" in result.stderr
    assert numbers(sample) == OLD
    told = mounted.error_log("sample")
    assert f"write line {before + 1} of entries.jsonl: " in told
    assert BAD[line] in told
    assert told.count("\n") == 3  # with the line, and the place in it


def test_only_white_space_of_json_is_passed_over(mounted: Mount, sample: Map) -> None:
    for given in (b"\f\n", b"\v", b"\0\n"):
        assert mounted.sh("cat > sample/entries.jsonl", given).code == 1
        assert "expected a line like" in mounted.error_log("sample")
    assert mounted.sh("cat > sample/entries.jsonl", b" \t\r\n\n ").code == 0


def test_the_log_has_the_line_and_the_place_in_it(mounted: Mount, sample: Map) -> None:
    mounted.sh("printf '{key: 1, value: 2}\\n\\n{key: 1, value: two}\\n' > sample/entries.jsonl")
    _, line, place = mounted.error_log("sample").splitlines()
    assert line == "    {key: 1, value: two}"
    assert place == "                    ^"


def test_after_a_bad_line_all_is_refused_up_to_a_new_start(mounted: Mount, sample: Map) -> None:
    good, bad = text_of({5: 5}).encode(), b"{}\n"
    with (mounted.path / "sample/entries.jsonl").open("wb", buffering=0) as file:
        file.write(good)
        for given in (bad, good):
            with pytest.raises(OSError, match="Invalid argument"):
                file.write(given)
        os.fsync(file.fileno())
        assert numbers(sample) == OLD
        file.seek(0)
        file.write(text_of({6: 6}).encode())
        os.fsync(file.fileno())
        assert numbers(sample) == OLD | {6: 6}
        with pytest.raises(OSError, match="Invalid argument"):
            file.write(bad)
        file.truncate(0)
        file.seek(0)
        file.write(text_of({7: 7}).encode())
    assert numbers(sample) == OLD | {6: 6, 7: 7}
    assert mounted.error_log("sample").count("entries.jsonl") == 2


def test_nothing_is_set_before_the_file_is_closed_or_synced(mounted: Mount, sample: Map) -> None:
    with (mounted.path / "sample/entries.jsonl").open("wb", buffering=0) as file:
        file.write(text_of({5: 5}).encode())
        assert numbers(sample) == OLD
        os.fsync(file.fileno())
        assert numbers(sample) == OLD | {5: 5}
        file.write(text_of({6: 6}).encode())
        assert numbers(sample) == OLD | {5: 5}
    assert numbers(sample) == OLD | {5: 5, 6: 6}


def test_truncating_alone_changes_nothing(mounted: Mount, sample: Map) -> None:
    mounted.sh(
        ": > sample/entries.jsonl; truncate -s 0 sample/entries.jsonl; touch sample/entries.jsonl"
    )
    assert numbers(sample) == OLD


def test_lines_leave_out_entries_that_stay(mounted: Mount, sample: Map) -> None:
    """It updates the map, and does not replace what is in it."""
    mounted.sh('echo \'{"key": 1, "value": 5}\' > sample/entries.jsonl')
    assert numbers(sample) == OLD | {1: 5}


def test_a_hole_and_going_back_are_refused(mounted: Mount, sample: Map) -> None:
    line = text_of({5: 5}).encode()
    for place in (1, len(line) - 1, len(line) + 1, 4096):
        with (mounted.path / "sample/entries.jsonl").open("wb", buffering=0) as file:
            file.write(line)
            with pytest.raises(OSError, match="Invalid argument"):
                os.pwrite(file.fileno(), line, place)
        assert numbers(sample) == OLD
        assert "one after the other" in mounted.error_log("sample")


def test_the_last_of_a_key_wins(mounted: Mount, sample: Map) -> None:
    given = "".join(text_of({1: number}) for number in range(10_000)).encode()
    assert mounted.sh("cat > sample/entries.jsonl", given).code == 0
    assert numbers(sample) == OLD | {1: 9999}


def test_a_text_that_ends_within_a_line_changes_nothing(mounted: Mount, sample: Map) -> None:
    given = text_of(dict.fromkeys(range(50), 7)).encode()[:-4]
    result = mounted.sh("cat > sample/entries.jsonl", given)
    assert result.code == 1
    assert numbers(sample) == OLD
    told = mounted.error_log("sample")
    assert "close line 50 of entries.jsonl: the text ends within an object" in told


def test_a_process_that_closes_its_copy_disturbs_no_line(mounted: Mount, sample: Map) -> None:
    """What a parent goes on to write may stand within a line when its child ends."""
    with (mounted.path / "sample/entries.jsonl").open("wb", buffering=0) as file:
        first, second = text_of({5: 5, 6: 6}).encode().splitlines(keepends=True)
        file.write(first + second[:9])
        for _ in range(3):
            subprocess.run(["true"], stdout=file, check=True)
        assert numbers(sample) == OLD
        file.write(second[9:])
    assert numbers(sample) == OLD | {5: 5, 6: 6}


WRITING = "import os, time; os.write(1, os.read(0, 4096)); os.write(2, b'.'); time.sleep(60)"


@pytest.mark.parametrize("cut", [0, 5])
def test_a_writer_that_is_killed(mounted: Mount, sample: Map, cut: int) -> None:
    """Killed between two lines, it has closed its file as any other; within one, nothing is set."""
    given = text_of({5: 5, 6: 6}).encode()
    path = mounted.path / "sample/entries.jsonl"
    with path.open("wb", buffering=0) as file:
        writer = subprocess.Popen(["python3", "-c", WRITING], stdin=PIPE, stdout=file, stderr=PIPE)
    with writer:
        assert writer.stdin and writer.stderr
        writer.stdin.write(given[: len(given) - cut])
        writer.stdin.close()
        assert writer.stderr.read(1) == b"."
        assert numbers(sample) == OLD
        writer.send_signal(signal.SIGKILL)
    assert numbers(sample) == (OLD if cut else OLD | {5: 5, 6: 6})
    mounted.error_log("sample")


# What maps refuse.


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.PERCPU_HASH], ids=["hash", "percpu_hash"])
def test_a_full_map_tells_how_far_it_came(mounted: Mount, kind: MapType) -> None:
    sample = mounted.pin("sample", make_map(kind, max_entries=5000))
    given = text_of(dict.fromkeys(range(6000), 7)).encode()
    result = mounted.sh("cat > sample/entries.jsonl", given)
    assert result.code == 1
    assert "No space left on device" in result.stderr
    assert set(each_key(sample)) == set(map(u32, range(5000)))
    told = mounted.error_log("sample")
    assert "5000 of 6000 entries set, stopped at key 5000: the map is full" in told


def test_more_lines_than_there_can_be_entries(mounted: Mount, sample: Map) -> None:
    result = mounted.sh("cat > sample/entries.jsonl", text_of({1: 7}).encode() * 65_537)
    assert result.code == 1
    assert "File too large" in result.stderr
    assert numbers(sample) == OLD
    assert "more lines than the map can hold" in mounted.error_log("sample")


def test_a_line_without_end(mounted: Mount, sample: Map) -> None:
    result = mounted.sh("cat > sample/entries.jsonl", b'{"key": ' + b" " * 200_000)
    assert result.code == 1
    assert "line 1 is longer than" in mounted.error_log("sample")


@each(ARRAYS)
def test_an_index_past_the_end_changes_nothing(mounted: Mount, kind: MapType) -> None:
    sample = mounted.pin("sample", make_map(kind, max_entries=10))
    before = dump(sample)
    result = mounted.sh("cat > sample/entries.jsonl", text_of({9: 9, 10: 10}).encode())
    assert result.code == 1
    assert dump(sample) == before
    assert "line 2 of entries.jsonl: index 10 is past the end" in mounted.error_log("sample")


def test_a_frozen_map(mounted: Mount, sample: Map) -> None:
    with (mounted.path / "sample/entries.jsonl").open("wb", buffering=0) as file:
        file.write(text_of({5: 5}).encode())
        (mounted.path / "sample/frozen").write_text("1\n")
        with pytest.raises(PermissionError):
            os.fsync(file.fileno())
    assert "0 of 1 entries set, stopped at key 5: the map is frozen" in mounted.error_log("sample")
    path = mounted.path / "sample/entries.jsonl"
    eventually("it cannot be written", lambda: not path.stat().st_mode & 0o222, 5)
    with pytest.raises(PermissionError):
        (mounted.path / "sample/entries.jsonl").open("w")
    assert "write entries.jsonl: the map is frozen" in mounted.error_log("sample")
    assert numbers(sample) == OLD


def test_sums_cannot_be_written(mounted: Mount) -> None:
    mounted.pin("summed", make_map(MapType.PERCPU_HASH))
    mounted.sh("echo 'percpu: sum' > summed/format")
    assert mounted.sh("stat -c %A summed/entries.jsonl").stdout == "-r--------\n"
    result = mounted.sh("echo '{key: 1, value: 2}' > summed/entries.jsonl")
    assert "Operation not permitted" in result.stderr
    assert "set `percpu: each`" in mounted.error_log("summed")


def test_a_mount_that_changes_nothing(mounter: Mounter, bpffs: Path) -> None:
    mount = mounter("-o", "ro")
    sample = mount.pin("sample", make_map())
    result = mount.sh("echo '{key: 1, value: 2}' > sample/entries.jsonl")
    assert "Read-only file system" in result.stderr
    assert dump(sample) == {}


# What kinds of maps and values there are.


@pytest.fixture
def shop(mounted: Mount) -> Iterator[Workshop]:
    """Where samples are made."""
    with workshop(mounted.source) as made:
        yield made


@each(SETTABLE)
def test_every_type_takes_back_what_it_gave(
    mounted: Mount, shop: Workshop, kind: MapType, tmp_path: Path
) -> None:
    sample = mounted.pin("sample", shop.sample(kind))
    before = dump(sample)
    path = tmp_path / "backup"
    assert mounted.sh(
        f"stat -c %A sample/entries.jsonl; cat sample/entries.jsonl > {path}"
    ).stdout == ("-rw-------\n")
    for key, value in before.items():
        sample.update(key, b"\1" + bytes(len(value) - 1))
    assert dump(sample) != before
    assert mounted.sh(f"cat {path} > sample/entries.jsonl").code == 0
    assert dump(sample) == before


@each(OTHERS)
def test_lines_are_not_taken_by_others(mounted: Mount, shop: Workshop, kind: MapType) -> None:
    mounted.pin("sample", shop.sample(kind))
    assert mounted.sh("stat -c %A sample/entries.jsonl").stdout == "-r--------\n"
    result = mounted.sh("echo '{}' > sample/entries.jsonl")
    assert "Permission denied" in result.stderr


@each(SIX)
@pytest.mark.parametrize("compact", [False, True])
def test_many_lines(mounted: Mount, kind: MapType, tmp_path: Path, compact: bool) -> None:
    count = MANY if not compact else 20_000
    most = 2 * count if "LRU" in kind.name else count  # so that none has to go for another
    sample = mounted.pin("sample", make_map(kind, max_entries=most))
    values = [7 * number for number in range(count)]
    sample.update_all(
        b"".join(map(u32, range(count))), b"".join(value_of(sample, v) for v in values)
    )
    before = dump(sample)
    path = tmp_path / "backup"
    form = "jq -c ." if compact else "cat"
    assert mounted.sh(f"{form} sample/entries.jsonl > {path}").code == 0
    for first in range(0, count, 1000):
        keys = b"".join(map(u32, range(first, min(first + 1000, count))))
        sample.update_all(keys, bytes(len(keys) // 4 * sample.stride))
    assert dump(sample) != before
    assert mounted.sh(f"cat {path} > sample/entries.jsonl").code == 0
    found = dump(sample)
    assert {key: found.get(key) for key in before} == before


# Values that are written in part, and bytes that no text tells.

CONFIG = struct.Struct("=B3sIH16s2s")  # `config` of support.maps, with its padding
OLD_CONFIG = CONFIG.pack(1, b"abc", 2, 443, b"old", b"de")


def test_fields_that_are_left_out_stay_as_they_are(mounted: Mount) -> None:
    sample = mounted.pin("sample", make_map(value="config"))
    sample.update(u32(1), OLD_CONFIG)
    given = [
        '{"key": 1, "value": {"mode": "MODE_OFF"}}',
        '{"key": 2, "value": {"label": "new"}}',
        '{"key": 1, "value": {"label": "both"}}',
        '{"key": 2, "value": {"enabled": true}}',
    ]
    assert mounted.sh("cat > sample/entries.jsonl", "\n".join(given).encode()).code == 0
    assert sample.lookup(u32(1)) == CONFIG.pack(1, b"abc", 0, 443, b"both", b"de")
    assert sample.lookup(u32(2)) == CONFIG.pack(1, bytes(3), 0, 0, b"new", bytes(2))


def test_they_are_those_of_when_the_text_ends(mounted: Mount) -> None:
    sample = mounted.pin("sample", make_map(value="pair"))
    sample.update(u32(1), struct.pack("=Ii", 1, 2))
    with (mounted.path / "sample/entries.jsonl").open("w") as file:
        file.write('{"key": 1, "value": {"first": 7}}\n')
        file.flush()
        sample.update(u32(1), struct.pack("=Ii", 3, 4))  # as a program does meanwhile
    assert sample.lookup(u32(1)) == struct.pack("=Ii", 7, 4)


@pytest.mark.parametrize("lines", ["cat", "jq -c ."])
def test_bytes_that_are_not_shown_stay(mounted: Mount, lines: str, tmp_path: Path) -> None:
    count = 5000
    sample = mounted.pin("sample", make_map(value="config", max_entries=count))
    keys = b"".join(map(u32, range(count)))
    sample.update_all(keys, OLD_CONFIG * count)
    path = tmp_path / "backup"
    assert mounted.sh(f"{lines} sample/entries.jsonl > {path}").code == 0
    sample.update_all(keys, CONFIG.pack(0, b"xyz", 0, 0, b"", b"zz") * count)
    assert mounted.sh(f"cat {path} > sample/entries.jsonl").code == 0
    expected = CONFIG.pack(1, b"xyz", 2, 443, b"old", b"zz")
    assert dump(sample) == dict.fromkeys(map(u32, range(count)), expected)


def test_keys_that_differ_in_their_padding_are_told_apart(mounted: Mount, tmp_path: Path) -> None:
    sample = mounted.pin("sample", make_map(key="config"))
    keys = OLD_CONFIG, CONFIG.pack(1, bytes(3), 2, 443, b"old", bytes(2))
    for number, key in enumerate(keys):
        sample.update(key, u64(number))
    path = tmp_path / "backup"
    assert mounted.sh(f"cat sample/entries.jsonl > {path}").code == 0
    for key in keys:
        sample.update(key, u64(7))
    assert mounted.sh(f"cat {path} > sample/entries.jsonl").code == 0
    assert dump(sample) == {key: u64(number) for number, key in enumerate(keys)}


def test_a_lock_is_left_alone(mounted: Mount) -> None:
    types = BtfBuilder()
    number = types.integer("unsigned int", 4)
    lock = types.struct("bpf_spin_lock", 4, [("val", number, 0)])
    value = types.struct("guarded", 8, [("count", number, 0), ("lock", lock, 32)])
    with BtfObject.load(types.build()) as btf:
        made = Map.create(
            MapType.HASH, key_size=4, value_size=8, max_entries=8, name="sample",
            btf=btf, key_type=number, value_type=value,
        )  # fmt: skip
    sample = mounted.pin("sample", made)
    sample.update(u32(1), struct.pack("=II", 5, 0))
    result = mounted.sh("sed s/5/6/ sample/entries.jsonl | tee sample/entries.jsonl")
    assert result.stdout == '{"key": 1, "value": {"count": 6}}\n'
    assert sample.lookup(u32(1)) == struct.pack("=II", 6, 0)


def test_prefixes_and_cpus(mounted: Mount) -> None:
    trie = mounted.pin("trie", make_map(MapType.LPM_TRIE, key=8, value=8, flags=NO_PREALLOC))
    given = b'{"key": "10.1.0.0/16", "value": 5}\n{"key": "10.0.0.0/8", "value": 0x7}\n'
    assert mounted.sh("cat > trie/entries.jsonl", given).code == 0
    found = {(key[0], key[4:6]): value for key, value in dump(trie).items()}
    assert found == {(16, b"\x0a\x01"): u64(5), (8, b"\x0a\x00"): u64(7)}
    each = mounted.pin("each", make_map(MapType.PERCPU_HASH))
    numbers = list(range(possible_cpus()))
    given = f'{{"key": 1, "value": 9}}\n{{"key": 2, "value": {numbers}}}\n'.encode()
    assert mounted.sh("cat > each/entries.jsonl", given).code == 0
    assert dump(each) == {u32(1): value_of(each, 9), u32(2): b"".join(map(u64, numbers))}


def test_a_format_that_is_set_is_that_of_lines(mounted: Mount) -> None:
    sample = mounted.pin("addresses", make_map(value="u32"))
    mounted.sh("echo 'key: ipv4' > addresses/format; echo 'value: be' >> addresses/format")
    given = b'{"key": "10.0.0.1", "value": 443}\n'
    assert mounted.sh("tee addresses/entries.jsonl", given).code == 0
    assert dump(sample) == {bytes([10, 0, 0, 1]): (443).to_bytes(4, "big")}
    assert (mounted.path / "addresses/entries.jsonl").read_bytes() == given


@pytest.mark.parametrize("form", ["cat", "jq -c .", "sed 's/:/ :/'"])
def test_others_are_served_meanwhile(mounted: Mount, tmp_path: Path, form: str) -> None:
    """Between the writes of a long text, of plain lines or others, and while it is set."""
    sample = mounted.pin("sample", make_map(max_entries=MANY))
    other = mounted.pin("other", make_map())
    name = mounted.path / "other/entries/1"
    keys = b"".join(map(u32, range(MANY)))
    sample.update_all(keys, b"".join(map(u64, range(MANY))))
    path = tmp_path / "backup"
    assert mounted.sh(f"{form} < sample/entries.jsonl > {path}").code == 0
    other.update(u32(1), u64(1))
    turns = 0
    with subprocess.Popen(["dd", f"if={path}", "of=sample/entries.jsonl", "bs=1M", "status=none"],
                          cwd=mounted.path) as writer:  # fmt: skip
        while writer.poll() is None:
            name.read_text()
            turns += 1
    assert writer.returncode == 0
    assert turns > 5
