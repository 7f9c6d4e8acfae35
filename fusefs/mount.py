"""A mount from its first check to its end."""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import pyfuse3
import trio

from fusefs import loop, service
from fusefs.bpf import bpffs, libc
from fusefs.bpf.mounts import mounts
from fusefs.bpf.syscall import may_use_bpf
from fusefs.bpf.task import allow_interrupts
from fusefs.operations import Operations
from fusefs.options import TYPE
from fusefs.tree.context import Context
from fusefs.tree.formats import Formats
from fusefs.tree.root import Root

log = logging.getLogger(__name__)

DEVICE = Path("/dev/fuse")
# Signals that end a mount well; and those that mean nothing to it, and would leave a dead one.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_MEANINGLESS = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
)
# Memory that is kept when it is free, in bytes: a few replies, and what they are made of.
_KEPT = 4 << 20


class MountError(Exception):
    """Why there is no mount, in one line."""


def mounted_types(mountpoint: str) -> list[str]:
    """The types of the file systems mounted on `mountpoint`, the topmost last."""
    return [each.kind for each in mounts() if each.mountpoint == mountpoint]


def check_privilege() -> None:
    """Raise `MountError` unless this process may do what a mount takes."""
    if not may_use_bpf():
        raise MountError("no permission for bpf(2): run it as root")
    if not libc.may_openat2():
        raise MountError("no openat2(2): it takes Linux 5.6, and a container that allows it")
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise MountError(f"{DEVICE} is missing: load the module with 'modprobe fuse'") from None
    except OSError as error:
        raise MountError(f"{DEVICE} cannot be opened: {error.strerror}") from None


def open_source(source: str) -> bpffs.Directory:
    """The bpffs directory to mirror. Raises `MountError` when it is none."""
    try:
        directory = bpffs.Directory(source)
    except OSError as error:
        raise MountError(f"{source}: {error.strerror}") from None
    if not bpffs.is_bpffs(directory.fd):
        raise MountError(f"{source} is not a bpffs: mount one with 'mount -t bpf bpf {source}'")
    return directory


def prepare_mountpoint(mountpoint: str, source: bpffs.Directory) -> None:
    """Check `mountpoint`, and clear away a dead mount of ours. Raises `MountError`."""
    types = mounted_types(mountpoint)
    try:
        os.stat(mountpoint)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise MountError(f"{mountpoint}: {error.strerror}") from None
        if types[-1:] != [f"fuse.{TYPE}"]:
            raise MountError(f"{mountpoint}: another file system is mounted and dead") from None
        _detach(mountpoint)
        prepare_mountpoint(mountpoint, source)
        return
    if types[-1:] == [f"fuse.{TYPE}"]:
        raise MountError(f"{mountpoint}: {TYPE} is mounted here already")
    if is_inside(mountpoint, source):
        raise MountError(f"{mountpoint} is inside the bpffs that is to be shown")
    try:
        if os.listdir(mountpoint):
            raise MountError(f"{mountpoint}: the directory is not empty")
    except OSError as error:
        raise MountError(f"{mountpoint}: {error.strerror}") from None


def is_inside(path: str, source: bpffs.Directory) -> bool:
    """Whether `path` is in the bpffs of `source`, or in something that is mounted in it."""
    return any(
        os.stat(ancestor).st_dev == source.status().st_dev
        for ancestor in (path, *map(str, Path(path).parents))
    )


def _detach(mountpoint: str) -> None:
    try:
        libc.detach(mountpoint)
    except OSError as error:
        reason = error.strerror
        raise MountError(f"{mountpoint}: a dead mount cannot be removed: {reason}") from None
    log.info("removed a dead mount from %s", mountpoint)


def _expect_signals() -> None:
    """Let no signal that comes before, during or after the life of the mount leave a dead one:
    those that end it wait until there is somebody to take them, and are too late after that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    for number in _ENDING:
        signal.signal(number, lambda _number, _frame: None)
    _ignore(_MEANINGLESS)


def _ignore(signals: Iterable[signal.Signals]) -> None:
    for number in signals:
        signal.signal(number, signal.SIG_IGN)


def serve(
    source: bpffs.Directory,
    mountpoint: str,
    options: set[str],
    formats: Formats,
    by_id_listed: bool,
    fast_loop: bool,
    ready: Callable[[], None],
) -> None:
    """Mount, call `ready`, and serve until the mount is unmounted or a signal ends it.

    Raises `MountError` when it cannot be mounted.
    """
    # A descriptor for each directory that the kernel knows, and for each open file.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allow_interrupts()
    _expect_signals()
    libc.keep_freed_memory(_KEPT)
    gc.freeze()  # what is loaded now stays: to look through it again and again holds requests up
    os.umask(0)  # requests carry modes that their callers' masks were applied to
    context = Context(
        source,
        mountpoint,
        read_only="ro" in options,
        shared=not options.isdisjoint({"allow_other", "allow_root"}),
        by_id_listed=by_id_listed,
        formats=formats,
    )
    operations = Operations(Root(context), mountpoint)
    try:
        pyfuse3.init(operations, mountpoint, options)
    except RuntimeError as error:
        raise MountError(f"{mountpoint}: {error}") from None
    try:
        ready()
        trio.run(_serve, operations, mountpoint, fast_loop)
    finally:
        service.tell("STOPPING=1", f"STATUS={mountpoint} is being unmounted")
        pyfuse3.close()
        _ignore(_ENDING)  # else the interpreter restores what the kernel does, while it ends


def check_answer(mountpoint: str) -> None:
    """Wait until the mount answers. Raises `MountError` when it ends before it does."""
    try:
        os.stat(mountpoint)
    except OSError as error:
        raise MountError(f"{mountpoint}: the mount does not answer: {error.strerror}") from None


async def _announce(mountpoint: str) -> None:
    """Tell systemd when the mount answers.

    Another process asks it: one that waits for itself could not be killed meanwhile, not even with
    SIGKILL, since the kernel ends what it waits for only when its last thread has ended.
    """
    answer = await trio.run_process(
        ["stat", mountpoint], check=False, capture_stdout=True, capture_stderr=True
    )
    if answer.returncode:
        log.error("the mount does not answer: %s", answer.stderr.decode(errors="replace").strip())
    else:
        service.tell("READY=1", f"STATUS=mounted on {mountpoint}")


async def _serve(operations: Operations, mountpoint: str, fast_loop: bool) -> None:
    # Cancelled, and not asked to end: pyfuse3.terminate() would wait for requests under way.
    with trio.open_signal_receiver(*_ENDING) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for number in signals:
                    log.info("ended by %s", signal.Signals(number).name)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)
            operations.start(nursery)
            if service.is_awaited():
                nursery.start_soon(_announce, mountpoint)
            await loop.main(fast=fast_loop)
            nursery.cancel_scope.cancel()
