"""Mounts of bpffs and of bpf-fusefs, which leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from fusefs.bpf.object import Object
from support.maps import pin
from support.shell import ENVIRONMENT, Result, bash, checked, run
from support.waiting import eventually

T = TypeVar("T", bound=Object)

COMMAND = [str(Path(sys.executable).with_name("bpf-fusefs"))]
# No test takes so many seconds: a mount that hangs is killed then, and its clients with it.
longest = 300.0
_HARMLESS = re.compile(r"bpf-fusefs\[\d+\]: (INFO|DEBUG): ")


def mounts_at(path: Path) -> list[str]:
    """The types of what is mounted on `path`, the topmost last."""
    found = []
    # Other tests mount on names of all kinds.
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).split("\n")[:-1]:
        fields, _, rest = line.partition(" - ")
        if fields.split()[4].replace("\\040", " ") == str(path):
            found.append(rest.split()[0])
    return found


def unmount(path: Path) -> None:
    """Unmount all that is mounted on `path`, whatever it takes."""
    while mounts_at(path):
        if run(["umount", path]).code:
            run(["umount", "-l", path])


@contextlib.contextmanager
def nested(path: Path, arguments: Sequence[str | Path]) -> Iterator[Path]:
    """Something else that is mounted on `path`, as long as this lasts."""
    checked("mount", *arguments, path)
    try:
        yield path
    finally:
        unmount(path)


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that other users can reach, too."""
    path = Path(tempfile.mkdtemp(prefix="bpf-fusefs-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        for child in path.iterdir():
            with contextlib.suppress(OSError):  # a bpffs that a failed test has left busy
                child.rmdir() if child.is_dir() else child.unlink()
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def mounted_bpffs(options: str = "") -> Iterator[Path]:
    """A fresh bpffs."""
    with temporary_directory() as parent:
        path = parent / "bpffs"
        path.mkdir()
        extra = ["-o", options] if options else []
        assert run(["mount", "-t", "bpf", *extra, "bpf", path]).code == 0
        try:
            yield path
        finally:
            unmount(path)


class Mount:
    """A running `bpf-fusefs SOURCE MOUNTPOINT -f`, and where it is mounted."""

    def __init__(
        self,
        source: Path,
        parent: Path,
        options: Sequence[str] = (),
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.source = source
        self.path = parent / "mount"
        self.path.mkdir()
        self._log = parent / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, str(source), str(self.path), "-f", *options],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._watchdog = threading.Timer(longest, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        try:
            eventually("mounted, or ended", lambda: mounts_at(self.path) or self._ended(), 20)
            assert not self._ended(), f"the mount ended: {self.log()}"
            os.stat(self.path)
        except BaseException:
            self.close()
            raise

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")

    def sh(self, command: str, given: bytes = b"", seconds: float = 60) -> Result:
        """Run a bash command line in the root of the mount."""
        return bash(command, self.path, given=given, seconds=seconds)

    def pin(self, name: str, obj: T) -> T:
        """Pin an object in the bpffs that is shown; gives it back."""
        pin(self.source / name, obj)
        return obj

    def error_log(self, name: str) -> str:
        """What the error log of a pin says; it is empty afterwards."""
        file = self.path / name / "error_log"
        text = file.read_text()
        file.write_text("\n")
        return text

    def end(self) -> int:
        """Unmount as a user does; the exit code of the command."""
        result = run(["umount", self.path])
        assert result.code == 0, result
        return self.process.wait(10)

    def close(self) -> None:
        """Make sure that nothing is left of it."""
        self._watchdog.cancel()
        unmount(self.path)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        with contextlib.suppress(OSError):
            self._log.unlink()

    def complaints(self) -> list[str]:
        """Lines of the log that are no news of ordinary life."""
        return [line for line in self.log().splitlines() if not _HARMLESS.match(line)]


@contextlib.contextmanager
def mounted(
    source: Path,
    options: Sequence[str] = (),
    command: Sequence[str] = COMMAND,
    *,
    complains: bool = False,
) -> Iterator[Mount]:
    """A mount of `source`. It must end well, and have nothing to complain of in its log."""
    with temporary_directory() as parent:
        mount = Mount(source, parent, options, command)
        try:
            yield mount
            if mount.process.poll() is None:
                mount.end()
            assert mount.process.returncode == 0, mount.log()
            assert complains or not mount.complaints(), mount.log()
        finally:
            mount.close()


class SharedMount:
    """A mount that tests use one after the other; one that a test has broken is made anew."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._mount: Mount | None = None

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Mount]:
        """The mount, and its bpffs is empty."""
        if self._mount is None:
            source = self._stack.enter_context(mounted_bpffs())
            parent = self._stack.enter_context(temporary_directory())
            self._mount = Mount(source, parent)
            self._stack.callback(self._mount.close)
        mount = self._mount
        before = len(mount.complaints())
        try:
            yield mount
            assert mount.process.poll() is None, mount.log()
            assert len(mount.complaints()) == before, mount.log()
            empty(mount)
        except BaseException:
            self.close()
            raise

    def end(self) -> None:
        """Unmount; it must end well."""
        if self._mount:
            code = self._mount.end()
            assert code == 0, self._mount.log()

    def close(self) -> None:
        """Leave nothing behind."""
        self._mount = None
        self._stack.close()


def empty(mount: Mount) -> None:
    """Remove everything that is shown but what the kernel has put there.

    It is removed through the mount, so that the next test does not meet what the kernel may still
    know of this one's for a moment.
    """
    for parent, directories, files in os.walk(mount.source, topdown=False):
        shown = mount.path / Path(parent).relative_to(mount.source)
        for name in directories + files:
            if (shown / name).is_symlink():
                (shown / name).unlink()
            elif name not in ("maps.debug", "progs.debug"):
                (shown / name).rmdir()
