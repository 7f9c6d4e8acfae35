"""Iterators in the mount: `output`."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from support.links import Loaded, iterator, loaded, over_map
from support.maps import u32, u64
from support.mounting import Mount, mounts_at
from support.readers import SOON
from support.running import repeating
from support.waiting import eventually

from fusefs.bpf.link import Link

Mounter = Callable[..., Mount]

COUNT = 20_000


@pytest.fixture
def programs() -> Iterator[Loaded]:
    """Iterators, and a map with many numbers in it."""
    with loaded("links_iterators") as programs:
        with programs.map("numbers") as numbers:
            for number in range(COUNT):
                numbers.update(u32(number), u64(3 * number))
        yield programs


def pinned(mount: Mount, programs: Loaded, name: str) -> Link:
    """An iterator over the numbers, pinned as `link`."""
    with programs.program(name) as program, programs.map("numbers") as numbers:
        return mount.pin("link", over_map(program, numbers))


def runs(programs: Loaded) -> int:
    """How often the programs have run."""
    with programs.map("links_it.bss") as variables:
        return int.from_bytes(variables.lookup(u32(0)) or b"", "little")


def keep(programs: Loaded, count: int) -> None:
    """Remove all numbers but so many."""
    with programs.map("numbers") as numbers:
        for number in range(count, COUNT):
            numbers.delete(u32(number))


def threads(mount: Mount) -> int:
    """How many threads the mount has."""
    return len(os.listdir(f"/proc/{mount.process.pid}/task"))


def test_output_is_what_the_pin_prints(mounted: Mount, programs: Loaded) -> None:
    with pinned(mounted, programs, "each_element") as link:
        wanted = (mounted.source / "link").read_bytes()
        assert len(wanted.splitlines()) == COUNT
        for place in ("link", f".by-id/links/{link.info.id}"):
            assert (mounted.path / place / "output").read_bytes() == wanted
            assert mounted.sh(f"stat -c %A,%s {place}/output").stdout == "-r--------,0\n"
        # Whatever the size of the reads.
        for size in ("100", "4k", "1M"):
            result = mounted.sh(
                f"dd if=link/output bs={size} status=none | cmp - {mounted.source}/link"
            )
            assert (result.code, result.stdout, result.stderr) == (0, "", "")
        assert mounted.error_log("link") == ""


@pytest.mark.parametrize(
    "command",
    ["cat output", "cp output /dev/stdout", "tail -n +1 output", "grep : output", "awk 1 output"],
)
def test_with_tools(mounted: Mount, programs: Loaded, command: str) -> None:
    with pinned(mounted, programs, "each_element"):
        result = mounted.sh(f"cd link; {command} | cmp - {mounted.source}/link")
        assert (result.code, result.stdout, result.stderr) == (0, "", ""), result


def test_a_tool_that_reads_some_lines_and_another_that_reads_on(
    mounted: Mount, programs: Loaded
) -> None:
    with pinned(mounted, programs, "each_element"):
        wanted = (mounted.source / "link").read_text()
        assert mounted.sh("{ head -n 1; head -n 2; cat; } < link/output").stdout == wanted
        before = runs(programs)
        assert mounted.sh("head -n 3 link/output").stdout == "".join(
            wanted.splitlines(keepends=True)[:3]
        )
        assert 3 <= runs(programs) - before < COUNT


def test_going_back_runs_it_again(mounted: Mount, programs: Loaded) -> None:
    with pinned(mounted, programs, "each_element"):
        wanted = (mounted.source / "link").read_bytes()
        before = runs(programs)
        with (mounted.path / "link/output").open("rb", buffering=0) as file:
            first = b"".join(iter(lambda: file.read(1 << 16), b""))
            assert file.read(10) == b""
            once = runs(programs) - before
            # An element is gone to twice when its line did not fit in the kernel's buffer.
            assert COUNT <= once < COUNT + 100
            file.seek(0)
            again = b"".join(iter(lambda: file.read(1 << 16), b""))
            assert first == again == wanted
            assert runs(programs) - before == 2 * once
            for place in (100_000, 50_000, len(wanted) - 5):
                file.seek(place)
                assert file.read(5)[:1] == wanted[place : place + 1]
            file.seek(len(wanted) + 10)
            assert file.read(5) == b""


def test_who_reads_everything_runs_nothing(mounted: Mount, programs: Loaded) -> None:
    with pinned(mounted, programs, "each_element") as link:
        assert "output" not in os.listdir(mounted.path / "link")
        commands = [
            "grep -r . .", "find . -type f -exec cat {} +", "ls -lR .", "tar cf /dev/null .",
            "du -a .", "cp -r link /dev/shm/fusefs-copy; rm -rf /dev/shm/fusefs-copy",
        ]  # fmt: skip
        for command in commands:
            mounted.sh(command)
            mounted.sh(f"cd .by-id/links/{link.info.id}; {command}")
        assert runs(programs) == 0
        # To look at it, or to open it, is not to read it; `info` tells of it.
        assert mounted.sh("stat link/output; : < link/output; test -r link/output").code == 0
        assert mounted.sh("grep -c ^output: link/info").stdout == "1\n"
        assert runs(programs) == 0
        assert mounted.sh("head -c 1 link/output").code == 0
        assert runs(programs) > 0


def test_the_other_links_have_none(mounted: Mount, programs: Loaded) -> None:
    with pinned(mounted, programs, "each_element") as link, loaded() as others:
        with others.program("on_raw_tracepoint") as program:
            mounted.pin("program", program)
        assert mounted.sh("cat program/output").stderr.endswith("No such file or directory\n")
        assert mounted.sh("echo > link/output").stderr.endswith("Permission denied\n")
        assert link.info.type == 4


def test_the_program_is_swapped(mounted: Mount, programs: Loaded) -> None:
    with pinned(mounted, programs, "each_element"):
        with programs.program("each_element_too") as other:
            mounted.pin("other", other)
        with (mounted.path / "link/output").open() as file:
            assert file.readline() != "other\n"
            assert mounted.sh("ln -sfn ../other link/prog").stderr == ""
            # Who has begun to read goes on with the program that they began with.
            assert "other\n" not in file.readlines()
        assert mounted.sh("uniq link/output").stdout == "other\n"
        assert mounted.sh(f"cmp link/output {mounted.source}/link").code == 0


def test_a_program_that_fails(mounted: Mount, programs: Loaded) -> None:
    with pinned(mounted, programs, "again_and_again"):
        pin = mounted.sh(f"cat {mounted.source}/link")
        assert pin.stderr.endswith("Resource temporarily unavailable\n")
        before = runs(programs)
        result = mounted.sh("cat link/output")
        assert result.stderr.endswith("Resource temporarily unavailable\n")
        assert runs(programs) == before + 1
        assert "read output: Resource temporarily unavailable" in mounted.error_log("link")
        fd = os.open(mounted.path / "link/output", os.O_RDONLY)
        try:
            for _ in range(3):
                with pytest.raises(BlockingIOError):
                    os.read(fd, 100)
        finally:
            os.close(fd)
        assert runs(programs) == before + 4


def test_poll(mounted: Mount, programs: Loaded) -> None:
    with pinned(mounted, programs, "each_element"):
        fd = os.open(mounted.path / "link/output", os.O_RDONLY)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            length = 0
            while True:
                assert poll.poll(5000) == [(fd, select.POLLIN)]
                piece = os.read(fd, 1000)
                if not piece:
                    break
                length += len(piece)
        finally:
            os.close(fd)
        assert length == len((mounted.source / "link").read_bytes())


# Everybody else.


def test_a_slow_reader_takes_no_memory(mounted: Mount, programs: Loaded) -> None:
    with pinned(mounted, programs, "each_element"):
        fd = os.open(mounted.path / "link/output", os.O_RDONLY)
        try:
            assert os.read(fd, 10)
            seen: list[int] = []

            def stands() -> bool:
                seen.append(runs(programs))
                return len(seen) > 5 and len(set(seen[-5:])) == 1

            eventually("the program stands still", stands)
            assert seen[-1] < COUNT
            assert mounted.sh("cat link/output | wc -l").stdout == f"{COUNT}\n"
        finally:
            os.close(fd)


def test_others_are_served_while_a_read_takes_long(mounted: Mount, programs: Loaded) -> None:
    with pinned(mounted, programs, "slowly"):
        before = threads(mounted)
        with subprocess.Popen(["cat", mounted.path / "link/output"]) as reader:
            try:
                eventually("it runs", lambda: runs(programs) > 2)
                took: list[float] = []
                while len(took) < 100:
                    start = time.monotonic()
                    assert (mounted.path / "link/info").read_text()
                    took.append(time.monotonic() - start)
                assert reader.poll() is None, "it was not slow"
                assert sorted(took)[50] < 0.2
                start = time.monotonic()
                reader.send_signal(signal.SIGINT)
                assert reader.wait(5) == -signal.SIGINT
                assert time.monotonic() - start < SOON
            finally:
                reader.kill()
        keep(programs, 0)  # it goes through the rest of them
        eventually("the thread has ended", lambda: threads(mounted) <= before, 20)
        assert (mounted.path / "link/info").read_text()


def test_others_are_served_while_much_is_read(mounted: Mount, programs: Loaded) -> None:
    with programs.program("each_file") as program, iterator(program) as link:
        mounted.pin("files", link)
        with repeating((mounted.path / "files/output").read_bytes) as turns:
            took: list[float] = []
            while turns.count < 20 or len(took) < 100:
                start = time.monotonic()
                assert (mounted.path / "files/info").read_text()
                took.append(time.monotonic() - start)
        assert sorted(took)[len(took) // 2] < 0.2


def test_readers_that_go_leave_nothing(mounted: Mount, programs: Loaded) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{mounted.process.pid}/fd"))

    with pinned(mounted, programs, "each_element"):
        assert mounted.sh("head -n 1 link/output").code == 0
        eventually("the thread has ended", lambda: threads(mounted) == 1)
        before = descriptors()
        for _ in range(20):
            assert mounted.sh("head -n 1 link/output").code == 0
        eventually("the threads have ended", lambda: threads(mounted) == 1)
        eventually("all is closed", lambda: descriptors() <= before)


def test_the_mount_ends_while_it_is_read(mounter: Mounter, programs: Loaded) -> None:
    mount = mounter()
    keep(programs, 2000)
    with (
        pinned(mount, programs, "slowly"),
        subprocess.Popen(["cat", mount.path / "link/output"], stderr=subprocess.DEVNULL) as reader,
    ):
        eventually("it runs", lambda: runs(programs) > 2)
        mount.process.send_signal(signal.SIGTERM)
        # The kernel lets no process go before its read(2) of an iterator has ended.
        eventually("it is unmounted", lambda: not mounts_at(mount.path), 1)
        assert reader.wait(5) == 1
        assert runs(programs) < 2000
        assert mount.process.wait(20) == 0
