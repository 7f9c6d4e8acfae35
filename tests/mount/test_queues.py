"""Queues, stacks and bloom filters: what has no keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest
from support.maps import types, u32, u64
from support.mounting import Mount
from support.shell import Result
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType

BOTH = [MapType.QUEUE, MapType.STACK]
each_kind = pytest.mark.parametrize("kind", BOTH, ids=lambda kind: kind.name.lower())


def keyless(kind: MapType, value: str = "u64", max_entries: int = 4) -> Map:
    """A map without keys; `value` is one of `types()`. The kernel takes no BTF for most of them."""
    return Map.create(
        kind, key_size=0, value_size=types().sizes[value], max_entries=max_entries, name="keyless"
    )


def drained(queue: Map) -> list[int]:
    """All its elements, which are taken out."""
    elements = []
    while True:
        try:
            elements.append(int.from_bytes(queue.pop(), "little"))
        except FileNotFoundError:
            return elements


def shown(mounted: Mount, kind: MapType, value: str = "u64") -> Map:
    """Such a map, pinned, with numbers for values."""
    made = mounted.pin("sample", keyless(kind, value))
    if value == "u64":
        assert mounted.sh("echo value: uint > sample/format").code == 0
    return made


@each_kind
def test_elements_are_pushed_seen_and_popped(mounted: Mount, kind: MapType) -> None:
    sample = shown(mounted, kind)
    assert mounted.sh("echo 5 > sample/push; echo 6 > sample/push").code == 0
    first, second = ("5", "6") if kind == MapType.QUEUE else ("6", "5")
    for _ in range(3):  # to look changes nothing
        assert mounted.sh("cat sample/head; stat -c %s sample/head").stdout == f"{first}\n2\n"
    assert mounted.sh("rm sample/head; cat sample/head").stdout == f"{second}\n"
    assert drained(sample) == [int(second)]
    assert mounted.error_log("sample") == ""


@each_kind
def test_the_head_of_an_empty_one_is_not_there(mounted: Mount, kind: MapType) -> None:
    sample = shown(mounted, kind)
    assert "head" not in os.listdir(mounted.path / "sample")
    for command in ("cat sample/head", "rm sample/head", "stat sample/head"):
        assert mounted.sh(command).stderr.endswith("No such file or directory\n")
    sample.update(b"", u64(7))
    assert "head" in os.listdir(mounted.path / "sample")
    with (mounted.path / "sample/head").open() as file:
        assert file.read() == "7\n"
        assert drained(sample) == [7]
        file.seek(0)
        with pytest.raises(OSError, match="Stale file handle"):
            file.read()
    assert "head" not in os.listdir(mounted.path / "sample")


@each_kind
@pytest.mark.parametrize(
    "command",
    [
        "printf '1\\n2\\n3\\n' > push",
        "seq 3 >> push",
        "(echo 1; echo 2; echo 3) > push",
        "(/bin/echo 1; /bin/printf 2; printf '\\n'; /bin/printf 3) > push",
        "printf '1\\n\\n0x2\\n3' > push",
        "seq 3 | tee push > /dev/null",
        "seq 3 | dd of=push status=none",
        "exec 3> push; echo 1 >&3; printf '2\\n3\\n' >&3",
        'python3 -c \'open("push", "w").write("1\\n2\\n3")\'',
    ],
)
def test_many_are_pushed(mounted: Mount, kind: MapType, command: str) -> None:
    sample = shown(mounted, kind)
    result = mounted.sh(f"cd sample; {command}")
    assert (result.code, result.stderr) == (0, ""), mounted.error_log("sample")
    assert sorted(drained(sample)) == [1, 2, 3]


@each_kind
def test_what_is_no_element_is_refused(mounted: Mount, kind: MapType) -> None:
    sample = shown(mounted, kind)
    for text, reason in {
        "x": "expected an integer",
        "1\n2\nx": "expected an integer (8 bytes), got 'x'\n    x\n    ^\n",
        "1\n18446744073709551616": "18446744073709551616 is out of range",
        "[1, 2]": "got an array",
    }.items():
        result = mounted.sh("cat > sample/push", given=text.encode() + b"\n")
        assert (result.code, "Invalid argument" in result.stderr) == (1, True), text
        assert reason in mounted.error_log("sample")
    assert drained(sample) == []


@each_kind
def test_a_full_one_takes_no_more(mounted: Mount, kind: MapType) -> None:
    sample = shown(mounted, kind)
    assert mounted.sh("seq 4 > sample/push").code == 0
    assert mounted.sh("echo 5 > sample/push").stderr.endswith("No space left on device\n")
    assert "the map is full" in mounted.error_log("sample")
    assert len(drained(sample)) == 4
    assert mounted.sh("seq 6 > sample/push").stderr.endswith("No space left on device\n")
    assert "write push: the map is full" in mounted.error_log("sample")
    assert sorted(drained(sample)) == [1, 2, 3, 4]
    # A write says how much it took, and fails only when that is nothing.
    with (mounted.path / "sample/push").open("wb", buffering=0) as push:
        assert push.write(b"1\n") == 2
        assert push.write(b"20\n3\n4\n5\n6\n") == 7
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                push.write(b"5\n6\n")
        sample.pop()
        assert push.write(b"5\n6\n") == 2
    gone = 1 if kind == MapType.QUEUE else 4
    assert set(drained(sample)) == {1, 20, 3, 4, 5} - {gone}


@each_kind
def test_what_the_files_are_for_is_in_their_modes(mounted: Mount, kind: MapType) -> None:
    sample = shown(mounted, kind)
    sample.update(b"", u64(7))
    assert mounted.sh("stat -c %A sample/head sample/push").stdout == "-r--------\n--w-------\n"
    assert mounted.sh("cat sample/push") == Result(0, "", "")  # root may, and it is empty
    for command in ("echo 5 > sample/head", "rm sample/push", "touch sample/x"):
        result = mounted.sh(command)
        assert result.code == 1, command
        assert result.stderr.endswith(("Permission denied\n", "Operation not permitted\n"))
    assert mounted.sh("echo 1 > sample/frozen").code == 0
    push = mounted.path / "sample/push"
    eventually("nobody can push", lambda: not stat.S_IMODE(push.stat().st_mode))
    assert mounted.sh("rm sample/head").stderr.endswith("Operation not permitted\n")
    assert mounted.sh("echo 1 > sample/push").stderr.endswith("Permission denied\n")
    assert mounted.sh("cat sample/head").stdout == "7\n"


def test_typed_elements_of_several_lines(mounted: Mount) -> None:
    sample = mounted.pin("sample", keyless(MapType.QUEUE, "pair"))
    mounted.sh("echo 'value: be' > sample/format")
    assert mounted.sh("echo 258 > sample/push; cat sample/head").stdout == "258\n"
    assert sample.pop() == (258).to_bytes(8, "big")
    mounted.sh("echo 'value: hex' > sample/format")
    assert mounted.sh("cat > sample/push", given=b'"0100000002000000"\n').code == 0
    assert sample.pop() == u32(1) + u32(2)


def test_pushing_and_popping_asks_for_the_right_to_write(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    with keyless(MapType.QUEUE) as queue:
        queue.update(b"", u64(7))
        mount.pin("sample", queue)
        os.chmod(mount.source / "sample", 0o644)
        assert nobody(mount, "cat sample/head").stdout == '"0700000000000000"\n'
        for command in ("rm -f sample/head", "echo 8 > sample/push", "cat sample/push"):
            assert nobody(mount, command).stderr.endswith(DENIED)
        os.chmod(mount.source / "sample", 0o622)
        eventually("it cannot be read", lambda: nobody(mount, "cat sample/head").code)
        assert nobody(mount, "cat sample/head").stderr.endswith(DENIED)
        assert nobody(mount, "echo 8 > sample/push").code == 0
        # To pop is to read: bpf(2) refuses it to who opened the map to write alone.
        assert nobody(mount, "rm -f sample/head").stderr.endswith(DENIED)
        os.chmod(mount.source / "sample", 0o626)
        eventually("it can be read", lambda: nobody(mount, "cat sample/head").code == 0)
        assert nobody(mount, "rm -f sample/head").code == 0
        assert drained(queue) == [8]


def test_many_elements_are_added_as_they_come(mounted: Mount) -> None:
    """However the writes are cut, and however many they are."""
    count = 200_000  # of more than a megabyte
    queue = mounted.pin("sample", keyless(MapType.QUEUE, max_entries=count))
    assert mounted.sh("echo 'value: uint' > sample/format").code == 0
    result = mounted.sh(f"seq {count} | dd bs=4001 status=none > sample/push")
    assert (result.code, result.stderr) == (0, "")
    assert drained(queue) == list(range(1, count + 1))
    assert mounted.sh(f'echo "$(seq {count})" > sample/push').code == 0
    assert drained(queue) == list(range(1, count + 1))


def test_a_string_is_no_end_of_a_line(mounted: Mount) -> None:
    """Only a newline is: others that Unicode has are part of a text."""
    queue = mounted.pin("sample", keyless(MapType.QUEUE))
    assert mounted.sh("echo 'value: str' > sample/format").code == 0
    text = '"a\u2028b"\n"c\x85"\n'
    assert mounted.sh("cat > sample/push", given=text.encode()).code == 0
    assert [queue.pop() for _ in range(2)] == [
        value.encode().ljust(8, b"\0") for value in ("a\u2028b", "c\x85")
    ]


# Bloom filters.


def test_a_filter_says_what_may_be_there(mounted: Mount) -> None:
    made = mounted.pin("sample", keyless(MapType.BLOOM_FILTER, "address", 100))
    assert mounted.sh("echo 'value: ipv4' > sample/format").code == 0
    assert mounted.sh("cat sample/entries/10.0.0.1").stderr.endswith("No such file or directory\n")
    assert mounted.sh("printf '10.0.0.1\\n10.0.0.2\\n' > sample/push").code == 0
    assert made.contains(bytes([10, 0, 0, 2]))
    assert mounted.sh("cd sample/entries; cat 10.0.0.1 10.0.0.2").stdout == '"maybe"\n' * 2
    assert mounted.sh("test -e sample/entries/10.0.0.3").code == 1
    assert mounted.sh("ls -A sample/entries").stdout == ""
    assert "a filter can only tell" in mounted.sh("grep ^entries: sample/info").stdout
    assert mounted.sh("ls sample").stdout.split() == [
        "entries", "error_log", "format", "frozen", "info", "info.json", "push", "types.h",
    ]  # fmt: skip


def test_a_filter_forgets_nothing(mounted: Mount) -> None:
    made = mounted.pin("sample", keyless(MapType.BLOOM_FILTER, "u32", 100))
    made.update(b"", u32(1))
    mounted.sh("echo value: auto > sample/format")
    for command, reason in {
        "rm 01000000": "a bloom filter forgets nothing",
        "mv 01000000 02000000": "a bloom filter forgets nothing",
        "touch 02000000": "write it to push",
        "echo 1 > 02000000": "write it to push",
    }.items():
        result = mounted.sh(f"cd sample/entries; {command}")
        assert result.stderr.endswith("Operation not permitted\n"), command
        assert reason in mounted.error_log("sample")
    assert mounted.sh("echo 1 > sample/entries/01000000").stderr.endswith("Permission denied\n")
    assert mounted.sh("stat -c %A sample/entries sample/entries/*1*").stdout == "dr-x------\n"
    assert made.contains(u32(1))
    assert not made.contains(u32(2))
