"""A bug in a handler costs one request, and not the mount."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyfuse3
import pytest
from support.maps import make_map, u32, u64
from support.mounting import Mount, mounted, mounted_bpffs
from support.waiting import eventually

from fusefs.bpf.map import Map
from fusefs.operations import Operations

HANDLERS = sorted(
    name
    for name in vars(Operations)
    if not name.startswith("_") and callable(getattr(pyfuse3.Operations, name, None))
)


class Faulty:
    """A mount in which a handler can be made to fail."""

    def __init__(self, mount: Mount, faults: Path, sample: Map) -> None:
        self.mount = mount
        self.sample = sample
        self._faults = faults

    @contextlib.contextmanager
    def fault(self, handler: str) -> Iterator[None]:
        """While this lasts, a handler fails."""
        self._faults.write_text(handler)
        try:
            yield
        finally:
            self._faults.write_text("")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """A mount in which a handler can be made to fail, of a map, a directory and a link."""
    faults = tmp_path_factory.mktemp("faults") / "handler"
    faults.write_text("")
    script = str(Path(__file__).with_name("faulty_command.py"))
    with (
        mounted_bpffs() as bpffs,
        mounted(bpffs, command=[sys.executable, script, str(faults)], complains=True) as mount,
        make_map() as sample,
    ):
        sample.update(u32(1), u64(101))
        mount.pin("sample", sample)
        os.mkdir(bpffs / "directory")
        os.symlink("sample", bpffs / "link")
        yield Faulty(mount, faults, sample)


def write(path: Path, call: Callable[[int], object]) -> None:
    """Open an entry to write, and do something with it."""
    fd = os.open(path / "sample/entries/1", os.O_WRONLY)
    try:
        call(fd)
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def flushed(path: Path) -> None:
    """Close an entry: a flush."""
    os.close(os.open(path / "sample/entries/1", os.O_WRONLY))


def polled(path: Path) -> None:
    """Ask whether an entry can be read; to poll(2) itself a fault is an event."""
    with (path / "sample/entries/1").open() as file:
        asking = select.poll()
        asking.register(file, select.POLLIN)
        if any(event & select.POLLERR for _, event in asking.poll()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


# A system call that reaches each handler.
TRIGGERS: dict[str, Callable[[Path], object]] = {
    "lookup": lambda path: os.stat(path / "absent"),
    "getattr": os.stat,
    "setattr": lambda path: os.chmod(path, 0o755),
    "readlink": lambda path: os.readlink(path / "link"),
    "statfs": os.statvfs,
    "getxattr": lambda path: os.getxattr(path / "sample/entries/1", "user.bpf.key"),
    "listxattr": lambda path: os.listxattr(path / "sample/entries/1"),
    "mkdir": lambda path: os.mkdir(path / "new"),
    "mknod": lambda path: os.mkfifo(path / "new"),
    "symlink": lambda path: os.symlink("text", path / "new"),
    "link": lambda path: os.link(path / "sample/info", path / "sample/new"),
    "unlink": lambda path: os.unlink(path / "sample/entries/1"),
    "rmdir": lambda path: os.rmdir(path / "directory"),
    "rename": lambda path: os.rename(path / "directory", path / "new"),
    "opendir": os.listdir,
    "readdir": os.listdir,
    "open": lambda path: (path / "sample/entries/1").read_text(),
    "create": lambda path: (path / "sample/entries/2").write_text("5\n"),
    "read": lambda path: (path / "sample/entries/1").read_text(),
    "poll": polled,
    "write": lambda path: write(path, lambda fd: os.write(fd, b"5\n")),
    "flush": flushed,
    "fsync": lambda path: write(path, os.fsync),
}


def forgotten(path: Path) -> None:
    """Have the kernel give back an inode."""
    os.mkdir(path / "new")
    os.rmdir(path / "new")


# Those that give no answer, so that there is no error to see.
SILENT: dict[str, Callable[[Path], object]] = {
    "forget": forgotten,
    "release": lambda path: (path / "sample/entries/1").read_text(),
    "releasedir": os.listdir,
}


def alive(faulty: Faulty) -> None:
    """All is as it was."""
    assert faulty.mount.process.poll() is None
    assert (faulty.mount.path / "link/entries/1").read_text() == "101\n"
    assert {"sample", "directory", "link"} < set(os.listdir(faulty.mount.path))
    assert not (faulty.mount.path / "new").exists()


def logged(faulty: Faulty, handler: str) -> bool:
    """Whether the log has a fault in a handler, with its traceback."""
    _, found, after = faulty.mount.log().partition(f"ERROR: {handler}(")
    return bool(found) and "Traceback" in after and f"RuntimeError: a fault in {handler}\n" in after


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_fault_costs_one_request(faulty: Faulty, handler: str) -> None:
    if handler in SILENT:
        with faulty.fault(handler):
            SILENT[handler](faulty.mount.path)
            eventually("the fault is logged", lambda: logged(faulty, handler))
    else:

        def failed() -> bool:
            try:
                TRIGGERS[handler](faulty.mount.path)
            except OSError as error:
                return error.errno == errno.EIO
            return False

        with faulty.fault(handler):
            # The kernel answers some requests by itself as long as it still knows the answer.
            eventually("the request fails", failed, 1 if handler == "getattr" else 0)
        assert logged(faulty, handler), faulty.mount.log()
    eventually("it is forgotten", lambda: not (faulty.mount.path / "new").exists(), 1)
    alive(faulty)


# `forget` has no answer that could carry an errno, and catches what is raised by itself.
@pytest.mark.parametrize("handler", [name for name in HANDLERS if name != "forget"])
def test_every_handler_is_wrapped(handler: str) -> None:
    wrapper = getattr(Operations, handler)
    assert wrapper.__wrapped__.__name__ == handler
    assert wrapper.__code__.co_name == "wrapper"


def test_all_handlers_are_known() -> None:
    """A handler that is new needs a row here."""
    assert sorted(TRIGGERS | SILENT) == HANDLERS
