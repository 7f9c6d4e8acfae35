"""sockmap, sockhash and reuseport_sockarray: sockets by their addresses, which rm takes out."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.maps import u32, u64
from support.mounting import Mount
from support.running import repeating
from support.sockets import Sockets, cookie, put, socket_map, sockets, text
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType

KINDS = [MapType.SOCKMAP, MapType.SOCKHASH, MapType.REUSEPORT_SOCKARRAY]
OF_ALL = KINDS[:2]
INDEXED = [KINDS[0], KINDS[2]]
PUT_IN = "sockets are put in by their owners"


def named(kind: MapType) -> str:
    return kind.name.lower()


each_kind = pytest.mark.parametrize("kind", KINDS, ids=named)


@pytest.fixture
def made() -> Iterator[Sockets]:
    """Sockets that are closed at the end."""
    with sockets() as some:
        yield some


def pinned(mount: Mount, kind: MapType, *, value_size: int = 8, max_entries: int = 64) -> Map:
    """An empty map, pinned as `sample`, whose keys are numbers."""
    sample = mount.pin("sample", socket_map(kind, value_size=value_size, max_entries=max_entries))
    if "format" in os.listdir(mount.path / "sample"):
        (mount.path / "sample/format").write_text("key: uint\nvalue: auto\n")
    return sample


def one_for(made: Sockets, kind: MapType) -> socket.socket:
    """A socket that such a map takes."""
    return made.listener(shared=kind == MapType.REUSEPORT_SOCKARRAY)


def in_it(sample: Map) -> list[int]:
    """The numbers of the slots that are filled."""
    return sorted(
        int.from_bytes(key, "little")
        for batch in sample.batches()
        for key, _ in batch.pairs(sample.key_size, sample.stride)
    )


@pytest.mark.parametrize("kind", OF_ALL, ids=named)
def test_every_kind_of_socket(mounted: Mount, made: Sockets, kind: MapType, tmp_path: Path) -> None:
    sample = pinned(mounted, kind)
    wanted = {}
    for number, (one, shown) in enumerate(made.every(tmp_path).values(), 3):
        put(sample, 2 * number, one)  # slots in between stay empty
        wanted[str(2 * number)] = {"cookie": cookie(one), **shown}
    listed = mounted.sh("cd sample/entries; for f in *; do echo $f; cat $f; done").stdout
    lines = listed.splitlines()
    assert dict(zip(lines[::2], map(json.loads, lines[1::2]), strict=True)) == wanted
    streamed = mounted.sh("jq -c '[.key, .value]' sample/entries.jsonl").stdout.splitlines()
    assert {str(key): value for key, value in map(json.loads, streamed)} == wanted
    assert mounted.sh("cat sample/count").stdout == f"{len(wanted)}\n"
    sizes = mounted.sh("cd sample/entries; for f in *; do stat -c %s $f; wc -c < $f; done")
    assert sizes.stdout.split()[::2] == sizes.stdout.split()[1::2]
    assert set(mounted.sh("stat -c %A sample/entries/*").stdout.split()) == {"-r--------"}
    assert mounted.sh("rm sample/entries/*; ls sample/entries; cat sample/count").stdout == "0\n"
    assert in_it(sample) == []
    assert mounted.error_log("sample") == ""


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_sockets_that_share_a_port(mounted: Mount, made: Sockets, family: int) -> None:
    sample = pinned(mounted, MapType.REUSEPORT_SOCKARRAY)
    first = made.listener(family, shared=True)
    port = first.getsockname()[1]
    for number, one in enumerate(
        [first, *(made.listener(family, port, shared=True) for _ in "ab")]
    ):
        put(sample, 5 * number, one)
    told = [json.loads(line) for line in mounted.sh("cat sample/entries/*").stdout.splitlines()]
    assert [one["local"] for one in told] == [text(first.getsockname())] * 3
    assert len({one["cookie"] for one in told}) == 3
    datagrams = made.bound(family, shared=True)
    other = mounted.pin("other", socket_map(MapType.REUSEPORT_SOCKARRAY))
    put(other, 7, datagrams)
    assert mounted.sh("jq -r '.protocol, .local' other/entries/7").stdout.split() == [
        "udp", text(datagrams.getsockname()),
    ]  # fmt: skip
    assert mounted.sh("rm sample/entries/5; ls sample/entries").stdout.split() == ["0", "10"]
    assert in_it(sample) == [0, 10]


@each_kind
def test_nothing_can_be_written(mounted: Mount, made: Sockets, kind: MapType) -> None:
    sample = pinned(mounted, kind)
    put(sample, 1, one_for(made, kind))
    for command in ("echo 1 > 1", "echo 1 >> 1", "echo 1 > 2", "touch 3", "cp 1 4", "mv 1 5",
                    "ln -s ../info 6", "truncate -s 0 1"):  # fmt: skip
        result = mounted.sh(f"cd sample/entries && {command}")
        assert result.code == 1, command
        assert "Operation not permitted" in result.stderr, command
        log = mounted.error_log("sample")
        assert PUT_IN in log or "ln" in command, (command, log)
    assert in_it(sample) == [1]
    assert mounted.sh("cat sample/entries/2").stderr.endswith("No such file or directory\n")
    assert mounted.sh("rm sample/entries/2").stderr.endswith("No such file or directory\n")
    assert mounted.sh("ls sample/entries/64").stderr.endswith("No such file or directory\n")


@each_kind
def test_a_frozen_map(mounted: Mount, made: Sockets, kind: MapType) -> None:
    sample = pinned(mounted, kind)
    put(sample, 1, one_for(made, kind))
    assert mounted.sh("echo 1 > sample/frozen").code == 0
    assert "Operation not permitted" in mounted.sh("rm sample/entries/1").stderr
    assert in_it(sample) == [1]


@each_kind
def test_a_socket_that_closes(mounted: Mount, made: Sockets, kind: MapType) -> None:
    sample = pinned(mounted, kind)
    stays, goes = one_for(made, kind), one_for(made, kind)
    put(sample, 1, stays)
    put(sample, 2, goes)
    directory = mounted.path / "sample/entries"
    with (directory / "2").open("rb", buffering=0) as opened:
        before = opened.read()
        assert json.loads(before)["state"] == "listen"
        goes.close()
        eventually("the kernel takes it out", lambda: in_it(sample) == [1])
        with pytest.raises(FileNotFoundError):
            (directory / "2").read_text()
        assert os.listdir(directory) == ["1"]
        with pytest.raises(OSError):
            opened.seek(0)
            opened.read()
    assert mounted.sh("cat sample/count").stdout == "1\n"


def test_a_state_is_as_it_is_at_the_open(mounted: Mount, made: Sockets) -> None:
    sample = pinned(mounted, MapType.SOCKMAP)
    listener = made.listener()
    for number in range(20):
        client, server = made.connected(listener)
        put(sample, number, server)
        file = mounted.path / f"sample/entries/{number}"
        assert json.loads(file.read_text())["state"] == "established"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""  # so it has got it
        with file.open() as opened:
            told = opened.read()
            assert json.loads(told)["state"] == "close_wait"
            assert os.fstat(opened.fileno()).st_size == len(told)


@each_kind
def test_sockets_of_another_network_namespace(mounted: Mount, made: Sockets, kind: MapType) -> None:
    def bound() -> socket.socket:
        one = socket.socket(type=socket.SOCK_DGRAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("0.0.0.0", 0))
        return one

    sample = pinned(mounted, kind)
    foreign, own = made.apart(bound), made.bound(shared=True)
    put(sample, 1, foreign)
    put(sample, 2, own)
    shown = [json.loads(line) for line in mounted.sh("cat sample/entries/*").stdout.splitlines()]
    assert shown[0] == {"cookie": cookie(foreign)}
    assert shown[1]["local"] == text(own.getsockname())
    assert mounted.sh("rm sample/entries/1; cat sample/count").stdout == "1\n"


@pytest.mark.parametrize("kind", INDEXED, ids=named)
def test_slots_that_the_kernel_does_not_tell(mounted: Mount, made: Sockets, kind: MapType) -> None:
    sample = pinned(mounted, kind, value_size=4)
    put(sample, 1, one_for(made, kind))
    assert "entries" not in os.listdir(mounted.path / "sample")
    assert "values have 8 bytes, not 4" in mounted.sh("grep ^entries: sample/info").stdout
    assert mounted.sh("grep -r . sample | wc -l").stderr == ""


def test_keys_without_cookies(mounted: Mount, made: Sockets) -> None:
    sample = pinned(mounted, MapType.SOCKHASH, value_size=4)
    assert mounted.sh("ls sample/entries; cat sample/count sample/entries.jsonl").stdout == "0\n"
    assert mounted.sh("cat sample/entries/1").code == 1
    for number in (1, 5, 9):
        put(sample, number, made.listener())
    assert sorted(os.listdir(mounted.path / "sample/entries")) == ["1", "5", "9"]
    assert (
        mounted.sh("cat sample/entries/*; stat -c %s sample/entries/5").stdout == "{}\n" * 3 + "3\n"
    )
    assert mounted.sh("cat sample/count").stdout == "3\n"
    streamed = mounted.sh("jq -c . sample/entries.jsonl | sort").stdout.splitlines()
    assert streamed == [f'{{"key":{number},"value":{{}}}}' for number in (1, 5, 9)]
    assert "keys alone" in mounted.sh("grep ^entries: sample/info").stdout
    for absent in (0, 2, 10):
        assert not (mounted.path / f"sample/entries/{absent}").exists()
    (mounted.path / "sample/format").write_text("value: uint\n")
    assert mounted.sh("cat sample/entries/1").stdout == "{}\n"  # it is still not known
    assert mounted.sh("rm sample/entries/5; ls sample/entries").stdout == "1\n9\n"
    assert mounted.sh("rm sample/entries/5").stderr.endswith("No such file or directory\n")


@each_kind
def test_a_format_shows_the_cookie_alone(mounted: Mount, made: Sockets, kind: MapType) -> None:
    sample = pinned(mounted, kind)
    one = one_for(made, kind)
    put(sample, 1, one)
    (mounted.path / "sample/format").write_text("value: uint\n")
    assert mounted.sh("cat sample/entries/1").stdout == f"{cookie(one)}\n"
    assert json.loads(mounted.sh("cat sample/entries.jsonl").stdout)["value"] == cookie(one)
    assert mounted.sh("echo 1 > sample/entries/1").code == 1


def test_long_keys_of_a_sockhash(mounted: Mount, made: Sockets) -> None:
    sample = mounted.pin("long", socket_map(MapType.SOCKHASH, key_size=200))
    keys = [bytes([number]) * 200 for number in range(5)]
    listener = made.listener()
    for key in keys:
        sample.update(key, u64(listener.fileno()))
    names = os.listdir(mounted.path / "long/entries")
    assert len(set(names)) == 5
    for name in names:
        told = json.loads((mounted.path / "long/entries" / name).read_text())
        assert told["cookie"] == cookie(listener)
    assert mounted.sh("rm long/entries/*; cat long/count").stdout == "0\n"


@pytest.mark.parametrize("value_size", [4, 8])
def test_keys_that_stay_are_given_once_while_others_come_and_go(
    mounted: Mount, made: Sockets, value_size: int
) -> None:
    sample = pinned(mounted, MapType.SOCKHASH, value_size=value_size, max_entries=1024)
    listener = made.listener()
    staying = {str(number) for number in range(0, 200, 2)}
    for number in map(int, staying):
        put(sample, number, listener)

    def disturb() -> None:
        for number in range(1, 200, 8):
            put(sample, number, listener)
            sample.delete(u32(number))

    with repeating(disturb) as turns:
        turns.more(10)
        for _ in range(10):
            listed = os.listdir(mounted.path / "sample/entries")
            assert len(listed) == len(set(listed))
            assert staying <= set(listed) <= {str(number) for number in range(200)}
            lines = (mounted.path / "sample/entries.jsonl").read_text().splitlines()
            keys = [str(json.loads(line)["key"]) for line in lines]
            assert len(keys) == len(set(keys))
            assert staying <= set(keys)
            turns.more()


def test_each_reader_has_the_sockets_that_it_has_come_to(mounted: Mount, made: Sockets) -> None:
    """They are looked for in groups, and two readers are in different ones."""
    count = 20_000
    sample = pinned(mounted, MapType.SOCKMAP, max_entries=count)
    first, last = made.listener(), made.listener()
    for number in range(count):
        put(sample, number, first if number < 17_000 else last)
    with (mounted.path / "sample/entries.jsonl").open() as slow:
        begun = slow.readline()
        whole = (mounted.path / "sample/entries.jsonl").read_text()
        assert begun + slow.read() == whole
    values = [json.loads(line)["value"] for line in whole.splitlines()]
    for value, one in ((values[0], first), (values[-1], last)):
        assert value["local"] == text(one.getsockname())
    assert len(values) == count


def test_many_sockets(mounted: Mount, made: Sockets) -> None:
    sample = pinned(mounted, MapType.SOCKMAP, max_entries=2000)
    listener = made.listener()
    for number in range(0, 2000, 2):
        put(sample, number, made.connected(listener)[1])
    started = time.monotonic()
    result = mounted.sh("ls -l sample/entries | wc -l; cat sample/entries/* | grep -c established")
    took = time.monotonic() - started
    assert result.stdout.split() == ["1001", "1000"]
    assert took < 5, took
    lines = mounted.sh("jq -r '.value.local' sample/entries.jsonl | sort | uniq -c").stdout.split()
    assert lines == ["1000", text(listener.getsockname())]
