"""Logs that nobody takes: a full disk, a reader who is gone or has stopped, no place at all. The
mount goes on as if nothing were."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.maps import make_map, pin, u32, u64
from support.mounting import COMMAND, mounted_bpffs, mounts_at, nested, temporary_directory, unmount
from support.shell import ENVIRONMENT
from support.waiting import eventually

# A mount that hangs is killed after so many seconds, and who waits for it goes on.
_HANGS = 40


@contextlib.contextmanager
def logging_to(stderr: int | None, shell: str = 'exec "$@"') -> Iterator[Path]:
    """A mount that logs each request to a descriptor, or where the shell sends it; with a map,
    whose entry 1 is 100. It has to end well."""
    with mounted_bpffs() as bpffs, temporary_directory() as parent, make_map() as sample:
        place = parent / "place"
        place.mkdir()
        sample.update(u32(1), u64(100))
        pin(bpffs / "sample", sample)
        process = subprocess.Popen(
            ["bash", "-c", shell, "-", *COMMAND, str(bpffs), str(place), "-d"],
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip
        watchdog = threading.Timer(_HANGS, process.kill)
        watchdog.start()
        try:
            eventually("it is mounted", lambda: mounts_at(place) or process.poll() is not None, 20)
            yield place
            unmount(place)
            assert process.wait(30) == 0
        finally:
            watchdog.cancel()
            process.kill()
            unmount(place)


def used(place: Path) -> None:
    """Have it log more than a pipe holds; it has not become slow."""
    began = time.process_time()
    for _ in range(50):
        assert (place / "sample/entries/1").read_text() == "100\n"
        with pytest.raises(FileNotFoundError):
            (place / "none").read_text()
    assert time.process_time() - began < 5


def test_a_reader_who_has_stopped() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0):
        with logging_to(writing) as place:
            used(place)
            os.set_blocking(reading, False)
            old = b"".join(iter(lambda: reader.read(1 << 16), None))
            assert old.startswith(b"bpf-fusefs[")
            os.listdir(place)
            told = bytearray()

            def goes_on() -> bool:
                told.extend(reader.read(1 << 16) or b"")
                return b": DEBUG: " in told.partition(b" messages before this one were lost\n")[2]

            eventually("it goes on", goes_on)
        assert int(told.partition(b" messages before")[0].split()[-1]) > 20


def test_a_reader_who_is_gone() -> None:
    reading, writing = os.pipe()
    with open(writing, "wb", buffering=0):
        os.close(reading)
        with logging_to(writing) as place:
            used(place)


def test_a_full_disk() -> None:
    with temporary_directory() as parent:
        disk = parent / "disk"
        disk.mkdir()
        with nested(disk, ["-t", "tmpfs", "-o", "size=16k", "tmpfs"]):
            with (disk / "log").open("wb") as log, logging_to(log.fileno()) as place:
                used(place)
                assert (disk / "log").stat().st_size == 1 << 14
            (disk / "log").unlink()


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_no_place(closed: str) -> None:
    with logging_to(None, f'exec "$@" {closed}') as place:
        used(place)
