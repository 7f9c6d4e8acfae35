"""Doing all that one can where names are swapped meanwhile: as who swaps them, to get at what is
root's, and as root, who looks first at what it opens.

These functions are told to a `Person`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fusefs.bpf import libc

# A part of each key and value that is secret, as texts have it; no other number has it.
MARK = "177700017"
SECRET_KEY = "1777000170"
OWN_KEY = "1"
PINS = ("mine", "own/pin", "a/b/c/pin", "sticky/mine")
DIRECTORIES = (".", "own", "a/b/c", "sticky")
_AT_EMPTY_PATH = 0x1000


@dataclass
class Tally:
    """What was done and what was refused, how often, and what came out that was secret."""

    done: int = 0
    refused: int = 0
    leaks: Counter[str] = field(default_factory=Counter)
    strange: Counter[str] = field(default_factory=Counter)


# What may be said of names that are other things by now, and of what is not for the user.
_ORDINARY = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EXDEV,
    errno.EAGAIN, errno.ELOOP, errno.ESTALE, errno.ENOTEMPTY, errno.EINVAL, errno.EBUSY,
    errno.EOPNOTSUPP,
}  # fmt: skip
Operation = Callable[[], object]


def _done(tally: Tally, operations: Iterator[tuple[str, Operation]]) -> None:
    for what, operation in operations:
        try:
            told = str(operation())
        except OSError as error:
            tally.refused += 1
            if error.errno not in _ORDINARY:
                tally.strange[f"{what}: {error}"] += 1
        else:
            tally.done += 1
            if MARK in told:
                tally.leaks[f"{what}: {told[:200]}"] += 1


def intrude(mount: Path, home: str, seconds: float) -> Tally:
    """Try everything on the pins and directories in `home`, a directory of this user in the mount;
    by their paths, from within, and by what was opened before."""
    tally = Tally()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for name in PINS:
            pin = mount / home / name
            _done(tally, _on_pin(pin))
            _done(tally, _on_slots(mount / home / "table", name))
            for place in (pin / "entries", pin):
                with contextlib.suppress(OSError), _standing(place):
                    _done(tally, _on_keys(Path()) if place != pin else _on_pin(Path()))
            with contextlib.suppress(OSError), _opened(pin / "entries") as fd:
                for _ in range(4):
                    _done(tally, _on_opened(fd))
        for name in DIRECTORIES:
            _done(tally, _on_directory(mount / home / name))
    os.chdir("/")
    return tally


@contextlib.contextmanager
def _opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _standing(path: Path) -> Iterator[None]:
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir("/")


def _on_pin(pin: Path) -> Iterator[tuple[str, Operation]]:
    # (What was tried is in the error log, with its name.)
    for name in ("info", "info.json", "count", "entries.jsonl", "types.h"):
        yield f"read {name}", (pin / name).read_text
        yield f"size of {name}", partial(_size, pin / name)
    yield "write entries.jsonl", partial(_write, pin / "entries.jsonl", '{"key":996,"value":5}\n')
    yield "write error_log", partial(_write, pin / "error_log", "\n")
    yield "chmod", partial(os.chmod, pin, 0o666)
    yield "chown", partial(os.chown, pin, os.getuid(), -1)
    yield "utime", partial(os.utime, pin, (5, 5))
    yield from _on_keys(pin / "entries")


def _on_keys(entries: Path) -> Iterator[tuple[str, Operation]]:
    secret, own = entries / SECRET_KEY, entries / OWN_KEY  # nobody makes the former
    yield "list entries", partial(os.listdir, entries)
    yield "is there", partial(_is_there, secret)
    yield "read", secret.read_text
    yield "read own", own.read_text
    yield "write", partial(_write, secret, "5\n", os.O_WRONLY)
    yield "create", partial(_write, entries / "999", "5\n")
    yield "rename", partial(os.rename, secret, entries / "998")
    yield "rename own", partial(os.rename, own, entries / "995")
    yield "save", partial(_save, entries)
    yield "remove", partial(os.unlink, secret)
    yield "put back", partial(_write, own, "11\n")


def _on_opened(fd: int) -> Iterator[tuple[str, Operation]]:
    yield "list again", partial(os.listdir, fd)
    yield "is there, from opened", partial(_is_there, SECRET_KEY, fd)
    yield "remove from opened", partial(os.unlink, SECRET_KEY, dir_fd=fd)
    yield "create in opened", partial(_write, "997", "5\n", fd=fd)


def _on_slots(table: Path, target: str) -> Iterator[tuple[str, Operation]]:
    slot = table / "entries/0"
    yield "link a slot", partial(os.symlink, f"../../{target}", slot)
    yield "clear a slot", partial(os.unlink, slot)


def _on_directory(directory: Path) -> Iterator[tuple[str, Operation]]:
    new, newer = directory / "new", directory / "newer"
    yield "list directory", partial(os.listdir, directory)
    yield "mkdir", partial(os.mkdir, new)
    yield "rename directory", partial(os.rename, new, newer)
    yield "rmdir", partial(os.rmdir, newer)
    yield "rmdir new", partial(os.rmdir, new)
    yield "symlink", partial(os.symlink, "nowhere", new)
    yield "readlink", partial(os.readlink, new)
    yield "unlink", partial(os.unlink, new)
    yield "unpin what is root's", partial(os.rmdir, directory / "roots_too")
    yield "rename what is root's", partial(os.rename, directory / "roots_too", newer)


def _size(path: Path) -> int:
    return os.stat(path).st_size


def _is_there(path: Path | str, fd: int | None = None) -> str:
    return f"{MARK}: {os.stat(path, dir_fd=fd)}"


def _write(
    path: Path | str, text: str, flags: int = os.O_WRONLY | os.O_CREAT, fd: int | None = None
) -> None:
    file = os.open(path, flags, 0o600, dir_fd=fd)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _save(entries: Path) -> None:
    _write(entries / ".scratch", "5\n")
    os.rename(entries / ".scratch", entries / "994")


def work(mount: Path, home: str, owner: int, seconds: float) -> Tally:
    """What a careful root does in the directories of a user: it opens each without following a
    link, looks whose it is, and goes on with what it has opened. What is there it reads."""
    tally = Tally()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for name in DIRECTORIES:
            flags = os.O_PATH | os.O_NOFOLLOW
            with contextlib.suppress(OSError), _opened(mount / home / name, flags) as fd:
                if os.fstat(fd).st_uid == owner:
                    _done(tally, _in_directory(fd, owner))
        _done(tally, _on_link(mount / home / "link", owner))
        for name in PINS:
            _done(tally, _as_it_is(mount / home / name))
    return tally


def _in_directory(fd: int, owner: int) -> Iterator[tuple[str, Operation]]:
    itself = f"/proc/self/fd/{fd}"
    yield "mkdir", partial(os.mkdir, "roots_new", dir_fd=fd)
    yield "rename", partial(os.rename, "roots_new", "roots_newer", src_dir_fd=fd, dst_dir_fd=fd)
    yield "rmdir", partial(os.rmdir, "roots_newer", dir_fd=fd)
    yield "symlink", partial(os.symlink, "nowhere", "roots_link", dir_fd=fd)
    yield "unlink", partial(os.unlink, "roots_link", dir_fd=fd)
    yield "chmod", partial(os.chmod, itself, 0o1777)
    yield "chmod back", partial(os.chmod, itself, 0o755)
    yield "chown", partial(os.chown, itself, owner, owner)


def _on_link(link: Path, owner: int) -> Iterator[tuple[str, Operation]]:
    """Give a symbolic link to who has it already, once it was seen to be theirs."""
    with contextlib.suppress(OSError):
        fd = os.open(link, os.O_PATH | os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
            if stat.S_ISLNK(status.st_mode) and status.st_uid == owner:
                yield "chown a link", partial(_give, fd, owner)
                yield "read a link", partial(os.readlink, "", dir_fd=fd)
        finally:
            os.close(fd)


def _give(fd: int, owner: int) -> None:
    libc.call("fchownat", fd, ctypes.c_char_p(b""), owner, owner, _AT_EMPTY_PATH)


def _as_it_is(pin: Path) -> Iterator[tuple[str, Operation]]:
    """What changes nothing wherever it leads to. (What root may read is no leak.)"""
    for name in ("info", "entries.jsonl", f"entries/{OWN_KEY}", f"entries/{SECRET_KEY}"):
        yield f"read {name}", partial(_read_whole, pin / name)
    yield "list", partial(_list_whole, pin / "entries")


def _read_whole(path: Path) -> None:
    text = path.read_text()
    if text and not text.endswith("\n"):
        raise OSError(errno.EIO, f"half a text: {text!r}")


def _list_whole(path: Path) -> None:
    names = set(os.listdir(path))
    if OWN_KEY in names and SECRET_KEY in names:
        raise OSError(errno.EIO, f"names of two maps: {names}")
