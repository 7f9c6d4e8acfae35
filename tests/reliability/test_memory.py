"""Memory: what is large is served with little, nobody can have a mount take all of it, and what
there is none for is refused."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cgroups import limited
from support.maps import NO_PREALLOC, make_map, u32, u64
from support.mounting import COMMAND, Mount, mounted
from support.shell import run
from support.users import AS_NOBODY

from fusefs.bpf.map import Map

Mounter = Callable[..., Mount]

MEBIBYTE = 1 << 20
# What a mount and its mount point are given: twice what it takes to do nothing.
GIVEN = 64 * MEBIBYTE
# What open files may hold: of root, and of others (see fusefs/holdings.py).
OF_ROOT, OF_OTHERS = 64 * MEBIBYTE, 32 * MEBIBYTE
ENTRIES = 200_000


@contextlib.contextmanager
def little(bpffs: Path, size: int, *options: str) -> Iterator[Mount]:
    """A mount that has so much memory, and ends when it wants more."""
    with limited("memory") as group:
        group.limit(size)
        with mounted(bpffs, options, [*group.command, *COMMAND], complains=True) as mount:
            yield mount


@contextlib.contextmanager
def many_open() -> Iterator[None]:
    """This process may open as many files as it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def kept(mount: Mount) -> int:
    """How much memory a mount has, in bytes."""
    status = Path(f"/proc/{mount.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10


def test_what_is_large_takes_little(bpffs: Path) -> None:
    with make_map(max_entries=ENTRIES) as large, little(bpffs, GIVEN) as mount:
        large.update_all(b"".join(map(u32, range(ENTRIES))), u64(1) * ENTRIES)
        mount.pin("large", large)
        assert mount.sh("wc -l < large/entries.jsonl; cat large/count").stdout == (
            f"{ENTRIES}\n{ENTRIES}\n"
        )
        assert mount.sh("ls -f large/entries | wc -l").stdout == f"{ENTRIES + 2}\n"
        lines = b"".join(b'{"key": %d, "value": 2}\n' % key for key in range(ENTRIES))
        assert mount.sh("cat > large/entries.jsonl", lines).code == 0
        assert large.lookup(u32(ENTRIES - 1)) == u64(2)


# Each opens a file and has the mount keep something for it.


def unfinished(directory: Path) -> int:
    """A value that goes on."""
    fd = os.open(directory / "entries/1", os.O_WRONLY)
    os.write(fd, b"[" + b" " * 60_000)
    return fd


def line_without_end(directory: Path) -> int:
    """A line that goes on."""
    fd = os.open(directory / "entries.jsonl", os.O_WRONLY)
    os.write(fd, b'{"key": ' + b" " * 60_000)
    return fd


def stream(directory: Path) -> int:
    """A stream whose size is told."""
    return os.open(directory / "entries.jsonl", os.O_RDONLY)


@pytest.mark.parametrize("ask", [unfinished, line_without_end, stream])
def test_open_files_hold_so_much_and_no_more(bpffs: Path, ask: Callable[[Path], int]) -> None:
    opened: list[int] = []
    count = 8000
    with many_open(), make_map(max_entries=count) as sample, little(bpffs, 2 * GIVEN) as mount:
        sample.update_all(b"".join(map(u32, range(count))), u64(1 << 60) * count)
        mount.pin("sample", sample)
        try:
            with pytest.raises(OSError) as caught:
                while len(opened) < 10_000:
                    opened.append(ask(mount.path / "sample"))
            assert caught.value.errno in (errno.EMFILE, errno.ENOMEM)
            assert kept(mount) < GIVEN + OF_ROOT
            assert len(opened) > 100
        finally:
            for fd in opened:
                with contextlib.suppress(OSError):  # it was not complete
                    os.close(fd)
        os.close(ask(mount.path / "sample")) if ask is stream else None
        assert mount.sh("cat sample/entries/2").code == 0


# Opens a file as often as it can, and writes to it each time; how often, and the errno.
_GREEDY = """
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
text = sys.stdin.buffer.read()
opened = []
try:
    while len(opened) < 20_000:
        opened.append(os.open(sys.argv[1], os.O_RDWR))
        os.write(opened[-1], text)
except OSError as error:
    print(len(opened), error.errno, flush=True)
"""
_VALUE, _LINES = "wide/entries/01000000", "sample/entries.jsonl"


@pytest.mark.parametrize(
    ("file", "text"),
    [(_VALUE, b""), (_VALUE, b'"' + b"0" * 60_000), (_LINES, b'{"key":1,"value":1}\n' * 6000)],
)
def test_another_user_has_a_part(bpffs: Path, file: str, text: bytes) -> None:
    with (
        make_map(key=4, value=1 << 16) as wide,
        make_map() as sample,
        little(bpffs, 2 * GIVEN, "-oallow_other") as mount,
    ):
        wide.update(u32(1), bytes(1 << 16))
        bpffs.chmod(0o755)
        for name, bpf_map in {"wide": wide, "sample": sample}.items():
            mount.pin(name, bpf_map)
            (bpffs / name).chmod(0o666)
        command = [*AS_NOBODY, sys.executable, "-c", _GREEDY, file]
        result = run(command, cwd=mount.path, given=text)
        count, number = map(int, result.stdout.split())
        assert number in (errno.EMFILE, errno.ENOMEM)
        assert 20 < count < 8000
        assert kept(mount) < GIVEN + OF_OTHERS


def test_what_there_is_no_memory_for_is_refused(mounter: Mounter) -> None:
    mount = mounter(complains=True)
    size = 8 * MEBIBYTE
    with Map.create(
        1, key_size=4, value_size=4 * MEBIBYTE - 64, max_entries=1, flags=NO_PREALLOC
    ) as large:
        large.update(u32(1), bytes(4 * MEBIBYTE - 64))
        mount.pin("large", large)
        mount.sh("ls large/entries")
        pid = mount.process.pid
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        limits = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + size, -1))
        try:
            result = mount.sh("cat large/entries/01000000")
            assert result.stderr.endswith(": Cannot allocate memory\n")
            assert "maps.debug" in os.listdir(mount.path)
        finally:
            resource.prlimit(pid, resource.RLIMIT_AS, limits)
        assert mount.sh("cat large/entries/01000000 | wc -c").stdout == f"{size - 125}\n"
        assert "Traceback" not in mount.log()
        assert ": there is not enough memory\n" in mount.log()


def test_a_map_whose_cgroup_has_no_memory_is_full(bpffs: Path, mounter: Mounter) -> None:
    """A map without room made for it in advance: entries are charged to the cgroup of who made it
    (bpf_map_kmalloc_node in kernel/bpf/syscall.c)."""
    size = 1 << 12
    with limited("memory") as group:
        group.limit(4 * MEBIBYTE)
        made = run(
            [*group.command, "bpftool", "map", "create", bpffs / "poor", "type", "hash",
             "key", "4", "value", str(size), "entries", "100000", "name", "poor", "flags", "1"]
        )  # fmt: skip
        assert made.code == 0, made
        mount = mounter()
        lines = b"".join(
            b'{"key": "%08x", "value": "%s"}\n' % (n, b"11" * size) for n in range(3000)
        )
        result = mount.sh("cat > poor/entries.jsonl", lines)
        assert result.stderr.endswith(": Cannot allocate memory\n")
        assert ", stopped at key " in mount.error_log("poor")
        count = int(mount.sh("cat poor/count").stdout)
        assert 0 < count < 3000
        text = mount.sh("cat poor/entries.jsonl").stdout
        assert (
            text.count(f'"value":"{"11" * size}"') + text.count(f'"value": "{"11" * size}"')
            == count
        )
        assert mount.sh("rm poor/entries/*; cat poor/count").stdout == "0\n"
