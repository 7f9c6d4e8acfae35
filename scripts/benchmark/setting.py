"""Where it is measured: a bpffs and mounts of one's own, which leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.maps import Kind, make
from benchmark.measure import MeasureError
from fusefs.bpf.bpffs import Directory
from fusefs.bpf.map import Map
from fusefs.bpf.mounts import mounts

# Until a server answers, in seconds.
_PATIENCE = 30
# How often the mount point is looked at until then, in seconds.
_GLANCE = 0.0005
OURS = [str(Path(sys.executable).with_name("bpf-fusefs"))]
BARE = [sys.executable, "-m", "benchmark.bare"]


@dataclass(frozen=True)
class Sizes:
    """How much is measured: entries of a map, and so on."""

    entries: int = 1_000_000
    prefixes: int = 500_000
    updates: int = 50_000  # by bpftool, which takes them one by one
    keys: int = 4_000  # single operations of a client
    long: int = 100_000  # names that `ls -l` is asked for
    grepped: int = 20_000
    growth: tuple[int, ...] = (10_000, 100_000, 1_000_000, 4_000_000)
    commands: int = 100  # that are started to read or write one entry
    repeats: int = 3
    slow_repeats: int = 1  # of what takes long
    starts: int = 9

    @classmethod
    def quick(cls) -> Sizes:
        """About a minute's worth."""
        return cls(
            entries=100_000, prefixes=50_000, updates=10_000, keys=1_500, long=20_000,
            grepped=2_000, growth=(10_000, 50_000, 200_000), commands=40, slow_repeats=3, starts=5,
        )  # fmt: skip

    @classmethod
    def of(cls, entries: int) -> Sizes:
        """Small enough to try it, with so many entries at most: its numbers mean little."""
        small = min(entries, 200)
        return cls(
            entries, entries, small, small, entries, small, (entries // 4, entries),
            commands=3, repeats=1, starts=1,
        )  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A running file system: where it is mounted, and its process."""

    path: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(frozen=True)
class Pinned:
    """A map that is pinned: its pin, its name, what is in it and how much of it."""

    pin: Path
    bpf_map: Map
    kind: Kind
    entries: int

    @property
    def name(self) -> str:
        return self.pin.name


class Setting:
    """A directory with a bpffs in it, and room for mounts."""

    def __init__(self, top: Path, sizes: Sizes) -> None:
        self.top = top
        self.bpffs = top / "bpffs"
        self.sizes = sizes
        self._made = 0

    @contextlib.contextmanager
    def pinned(self, kind: Kind, entries: int) -> Iterator[Pinned]:
        """A pinned map with so many entries. It is freed at the end, if nobody else has it."""
        self._made += 1
        pin = self.bpffs / f"map{self._made}"
        directory = Directory(str(self.bpffs))
        with make(kind, entries) as bpf_map:
            directory.pin(pin.name, bpf_map)
            try:
                yield Pinned(pin, bpf_map, kind, entries)
            finally:
                directory.unlink(pin.name)

    def ours(self) -> contextlib.AbstractContextManager[Server]:
        """A mount of bpf-fusefs that shows the bpffs."""
        return self._mounted(lambda path: [*OURS, str(self.bpffs), str(path), "-f"])

    def bare(self, names: int, timeout: float) -> contextlib.AbstractContextManager[Server]:
        """A mount of the bare file system."""
        return self._mounted(lambda path: [*BARE, str(path), str(names), str(timeout)])

    @contextlib.contextmanager
    def _mounted(self, command: Callable[[Path], Sequence[str]]) -> Iterator[Server]:
        self._made += 1
        path = self.top / f"mount{self._made}"
        path.mkdir()
        log = self.top / "log"
        before = os.stat(path).st_dev
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(path), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,  # an interrupt from the terminal is for us alone
            )  # fmt: skip
        try:
            _wait_for_mount(path, before, process, log)
            yield Server(path, process)
        finally:
            _end(path, process)
            path.rmdir()


def _wait_for_mount(path: Path, before: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the mount answers: a `stat` of it waits for it. Raises `MeasureError`."""
    deadline = time.monotonic() + _PATIENCE
    while os.stat(path).st_dev == before:
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip()[-300:]
            raise MeasureError(f"a mount did not come: {said}")
        time.sleep(_GLANCE)


def _end(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Unmount, and see that the server ends, whatever it takes."""
    while any(each.mountpoint == str(path) for each in mounts()):
        if subprocess.run(["umount", path], stderr=subprocess.DEVNULL, check=False).returncode:
            subprocess.run(["umount", "-l", path], check=True)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def setting(sizes: Sizes) -> Iterator[Setting]:
    """A setting that is gone afterwards, with all that was pinned in it."""
    top = Path(tempfile.mkdtemp(prefix="bpf-fusefs-bench-"))
    made = Setting(top, sizes)
    try:
        made.bpffs.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", made.bpffs], check=True)
        try:
            yield made
        finally:
            subprocess.run(["umount", "-l", made.bpffs], check=True)
    finally:
        shutil.rmtree(top)
