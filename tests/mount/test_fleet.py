"""The mounts of other hosts, through sshd, sshfs and autofs, as docs/fleet.md tells of them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fleet import Fleet, Host, fleet, sshfs_options
from support.maps import dump, make_map, u32, u64
from support.mounting import mounts_at, temporary_directory
from support.readers import hexed
from support.rings import rings
from support.shell import Result, bash
from support.users import NOBODY
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType

MANY = 20_000
LOST = "Input/output error\n"  # what sshfs makes of any write that was refused


@pytest.fixture(scope="module")
def hosts() -> Iterator[Fleet]:
    """Two hosts."""
    with temporary_directory() as directory, fleet(directory) as made:
        yield made


@pytest.fixture(scope="module")
def alpha(hosts: Fleet) -> Host:
    """The host of most tests."""
    return hosts.hosts["alpha"]


@pytest.fixture(scope="module")
def there(hosts: Fleet, alpha: Host) -> Iterator[Path]:
    """Its mount, seen from here through sshfs with the options that the docs have."""
    with hosts.sshfs(alpha) as path:
        yield path


@contextlib.contextmanager
def pinned(host: Host, made: Map, name: str = "sample") -> Iterator[Map]:
    """A map that is pinned on a host."""
    host.mount.pin(name, made)
    try:
        yield made
    finally:
        (host.mount.source / name).unlink()


@pytest.fixture
def sample(alpha: Host) -> Iterator[Map]:
    """A map of which the entry 1 is 101."""
    with pinned(alpha, make_map()) as made:
        made.update(u32(1), u64(101))
        yield made


def sh(there: Path, command: str) -> Result:
    """Run a command in the root of a mount."""
    return bash(command, there, seconds=20)


# autofs.


def test_a_host_is_mounted_when_it_is_asked_for_and_not_for_longer(
    hosts: Fleet, sample: Map
) -> None:
    with hosts.autofs(idle=1) as top, pinned(hosts.hosts["beta"], make_map()) as other:
        assert os.listdir(top) == []
        assert (top / "alpha/sample/entries/1").read_text() == "101\n"
        assert mounts_at(top / "alpha") == ["fuse.sshfs"]
        told = sh(top, "echo 202 > beta/sample/entries/2; grep . {alpha,beta}/sample/entries/*")
        assert told.stdout == "alpha/sample/entries/1:101\nbeta/sample/entries/2:202\n", told
        assert dump(other) == {u32(2): u64(202)}
        assert not (top / "gamma").exists()
        eventually("they are unmounted", lambda: os.listdir(top) == [], 15)
        assert (top / "alpha/sample/entries/1").read_text() == "101\n"


# What users do.


def test_entries_are_read_set_made_moved_and_removed(there: Path, sample: Map) -> None:
    told = sh(
        there,
        "cd sample/entries; cat 1; echo 5 > 1; cat 1; stat -c %s 1; echo 6 > 2; cp 2 3;"
        "mv 3 4; rm 2; ls",
    )
    assert told == Result(0, "101\n5\n2\n1\n4\n", "")
    assert dump(sample) == {u32(1): u64(5), u32(4): u64(6)}


def test_an_editor_saves(there: Path, sample: Map) -> None:
    assert sh(there, "vim -Nu NONE -es -c %s/101/303/ -c wq sample/entries/1").code == 0
    assert dump(sample) == {u32(1): u64(303)}
    assert sh(there, "cd sample/entries; sed -i s/303/404/ 1").code == 0
    assert dump(sample) == {u32(1): u64(404)}


def test_changes_elsewhere_are_seen(there: Path, sample: Map) -> None:
    assert sh(there, "ls -l sample/entries; cat sample/entries/1").stdout.endswith("101\n")
    sample.delete(u32(1))
    sample.update(u32(20), u64(5))
    eventually("it is seen", lambda: os.listdir(there / "sample/entries") == ["20"])
    assert sh(there, "cat sample/entries/20").stdout == "5\n"


def test_what_is_refused(there: Path, sample: Map) -> None:
    result = sh(there, "echo -1 > sample/entries/1")
    assert (result.code, result.stderr.endswith(LOST)) == (1, True), result
    assert "-1 is out of range" in sh(there, "cat sample/error_log").stdout
    assert sh(there, ": > sample/error_log; cat sample/error_log").stdout == ""
    for command, error in {
        "echo 5 > sample/entries/nonsense": "Bad message\n",
        "cat sample/entries/9": "No such file or directory\n",
        "echo 5 > sample/info": "Permission denied\n",
        "rm sample/entries/9": "No such file or directory\n",
        "mkdir sample": "File exists\n",
    }.items():
        result = sh(there, command)
        assert (result.code, result.stderr.endswith(error)) == (1, True), result
    assert dump(sample) == {u32(1): u64(101)}


def test_many_entries(there: Path, alpha: Host) -> None:
    with pinned(alpha, make_map(max_entries=MANY)) as sample:
        lines = "".join(f'{{"key": {n}, "value": {n * 7}}}\n' for n in range(MANY)).encode()
        command = "dd of=sample/entries.jsonl bs=1M iflag=fullblock conv=fsync status=none"
        assert bash(command, there, given=lines) == Result(0, "", "")
        assert dump(sample) == {u32(n): u64(n * 7) for n in range(MANY)}
        here = alpha.mount.sh("cat sample/entries.jsonl").stdout
        assert sorted(here.splitlines()) == sorted(lines.decode().splitlines())
        for command in ("cat", "dd status=none bs=1M <", "dd status=none bs=5000 <"):
            assert sh(there, f"{command} sample/entries.jsonl").stdout == here, command
        assert sh(there, "ls -U sample/entries | wc -l").stdout == f"{MANY}\n"


def test_what_is_set_at_close_tells_its_error_at_fsync_alone(there: Path, alpha: Host) -> None:
    lines = "".join(f'{{"key": {n}, "value": 1}}\n' for n in range(65)).encode()
    with pinned(alpha, make_map()):
        assert bash("cat > sample/entries.jsonl", there, given=lines).code == 0
        log = "64 of 65 entries set, stopped at key 64: the map is full"
        eventually("it is refused", lambda: log in alpha.mount.error_log("sample"))
        result = bash("dd of=sample/entries.jsonl conv=fsync", there, given=lines)
        assert (result.code, "Operation not permitted" in result.stderr) == (1, True), result
        assert log in alpha.mount.error_log("sample")


def test_symbolic_links(there: Path, alpha: Host) -> None:
    inner = make_map()
    with (
        pinned(alpha, inner, "inner"),
        pinned(
            alpha,
            Map.create(MapType.ARRAY_OF_MAPS, key_size=4, value_size=4, max_entries=4, inner=inner),
            "outer",
        ) as outer,
    ):
        inner.update(u32(1), u64(5))
        told = sh(there, "ln -s ../../inner outer/entries/3; cat outer/entries/3/entries/1")
        assert told == Result(0, "5\n", "")
        assert dump(outer) == {u32(3): u32(inner.info.id)}
        assert sh(there, "rm outer/entries/3; ls outer/entries") == Result(0, "", "")


# The options, and why each is needed.


def without(option: str) -> tuple[str, ...]:
    """The other options."""
    return tuple(other for other in sshfs_options() if other != option)


def test_without_direct_io_a_stream_is_empty(hosts: Fleet, alpha: Host, sample: Map) -> None:
    with hosts.sshfs(alpha, without("direct_io")) as path:
        assert (path / "sample/entries.jsonl").read_text() == ""


def test_without_sshfs_sync_the_shell_is_not_told(hosts: Fleet, alpha: Host, sample: Map) -> None:
    with hosts.sshfs(alpha, without("sshfs_sync")) as path:
        assert sh(path, "echo -1 > sample/entries/1").code == 0
    assert dump(sample) == {u32(1): u64(101)}
    assert "-1 is out of range" in alpha.mount.error_log("sample")


def test_with_its_cache_what_was_seen_stays(hosts: Fleet, alpha: Host, sample: Map) -> None:
    with hosts.sshfs(alpha, without("dir_cache=no")) as path:
        assert os.listdir(path / "sample/entries") == ["1"]
        sample.update(u32(2), u64(5))
        assert os.listdir(path / "sample/entries") == ["1"]


# Rings.


def test_records_come_through_and_others_do_too(there: Path, alpha: Host) -> None:
    with rings(alpha.mount.source) as made:
        records = [b"%d" % number for number in range(12)]
        pipe = there / "maps/small/records_pipe"
        got: list[str] = []
        enough = threading.Event()
        slowest = 0.0

        def read() -> None:
            while not enough.is_set():
                # sshfs may send that it is opened again before it sends that it was closed.
                with contextlib.suppress(PermissionError):
                    got.append(pipe.read_text())

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for record in records:
                made.put(record)
                start = time.monotonic()
                assert (there / "maps/small/info").read_text()
                slowest = max(slowest, time.monotonic() - start)
            eventually("all are read", lambda: "".join(got) == hexed(*records))
            assert slowest < 2
        finally:
            enough.set()
            reader.join()


# Who logs in.


def test_another_user_may_do_what_bpffs_lets_them(hosts: Fleet) -> None:
    beta = hosts.hosts["beta"]
    with (
        pinned(beta, make_map(), "private"),
        pinned(beta, make_map(), "public") as public,
        hosts.sshfs(beta, login="beta-guest") as path,
    ):
        os.chmod(beta.mount.source / "public", 0o666)
        assert sh(path, "echo 5 > public/entries/1").code == 0
        assert dump(public) == {u32(1): u64(5)}
        denied = sh(path, "cat private/info; ls .by-id")
        assert denied.stderr.count("Permission denied") == 2
        assert sh(path, "mkdir theirs").code == 0
        assert os.stat(beta.mount.source / "theirs").st_uid == NOBODY
        os.rmdir(beta.mount.source / "theirs")
