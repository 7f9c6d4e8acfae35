"""What POSIX and Linux say of system calls on paths, as cases to be tried in a directory of bpffs.

The subjects are those of pjdfstest (https://github.com/pjd/pjdfstest): each call with each kind of
path that it may be given, as root, as the owner and as a stranger.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fusefs.bpf import libc
from fusefs.bpf.bpffs import Directory, RenameFlags
from fusefs.bpf.map import Map
from support.people import MEMBER, OWNER, ROOT, STRANGER, THE_OWNER, THE_STRANGER, User

_AT_FDCWD = -100
# Paths from the directory of a case. It belongs to the owner, as what is in it but where it says.
PATHS = {
    "missing": "missing",
    "directory": "dir",
    "directory with a slash": "dir/",
    "directory with a dot": "dir/.",
    "directory with two dots": "dir/sub/..",
    "two dots": "..",
    "itself": ".",
    "nothing": "",
    "full directory": "full",
    "pin": "pin",
    "pin with a slash": "pin/",
    "link to a directory": "link",
    "link to a pin": "link_to_pin",
    "dangling link": "dangling",
    "dangling link with a slash": "dangling/",
    "link to itself": "loop",
    "below what is missing": "missing/x",
    "below a pin": "pin/x",
    "below a link": "link/x",
    "below a dangling link": "dangling/x",
    "below a link to itself": "loop/x",
    "name of 255 bytes": "n" * 255,
    "name of 256 bytes": "n" * 256,
    "below a name of 256 bytes": "n" * 256 + "/x",
    "path of 4095 bytes": "./" * 2040 + "missing",  # but for what leads to the directory
    "path of 4096 bytes": "./" * 2080 + "missing",
    "name with a dot": "a.b",
    "in root's directory": "roots/x",
    "in root's closed directory": "closed/x",
    "root's directory": "roots",
    "root's in the own directory": "roots_sub",
    "root's pin": "roots_pin",
    "root's in a sticky directory": "sticky/roots",
    "a stranger's in a sticky directory": "sticky/strangers",
    "new in a sticky directory": "sticky/new",
    "in a directory with setgid": "setgid/x",
}
_LONGEST_PATH = 4096  # PATH_MAX, with the byte that ends it


def _chown(uid: int, gid: int, path: str) -> None:
    os.chown(path, uid, gid)


def _lchown(uid: int, gid: int, path: str) -> None:
    os.chown(path, uid, gid, follow_symlinks=False)


def _mode_with_bits(path: str) -> None:
    os.chmod(path, 0o7711)


def _open(flags: int, path: str) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK, 0o644))


def _utime(path: str, times: tuple[int, int] | None, *, follows: bool = True) -> None:
    os.utime(path, ns=times, follow_symlinks=follows) if times else os.utime(path)


def _chdir(path: str) -> None:
    os.chdir(path)
    os.chdir("/")


def _listed(path: str) -> list[str]:
    return sorted(os.listdir(path))


def _kind(path: str, *, follows: bool) -> int:
    return stat.S_IFMT(os.stat(path, follow_symlinks=follows).st_mode)


Call = Callable[[str], object]
CALLS: dict[str, Call] = {
    "chmod 0711": lambda path: os.chmod(path, 0o711),
    "chmod 07711": _mode_with_bits,
    "chown": partial(_chown, MEMBER, MEMBER),
    "chown to the owner": partial(_chown, OWNER, OWNER),
    "lchown group": partial(_lchown, -1, MEMBER),
    "chown of nothing": partial(_lchown, -1, -1),
    "mkdir": lambda path: os.mkdir(path, 0o777),
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "symlink": lambda path: os.symlink("text", path),
    "symlink of 4095 bytes": lambda path: os.symlink("t" * 4095, path),
    "symlink of 4096 bytes": lambda path: os.symlink("t" * 4096, path),
    "empty symlink": lambda path: os.symlink("", path),
    "readlink": os.readlink,
    "open to read": partial(_open, os.O_RDONLY),
    "open a directory": partial(_open, os.O_RDONLY | os.O_DIRECTORY),
    "open no link": partial(_open, os.O_RDONLY | os.O_NOFOLLOW),
    "open to write": partial(_open, os.O_WRONLY),
    "create": partial(_open, os.O_WRONLY | os.O_CREAT),
    "create anew": partial(_open, os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "open and truncate": partial(_open, os.O_WRONLY | os.O_TRUNC),
    "open by name": partial(_open, os.O_PATH),
    "truncate": lambda path: os.truncate(path, 0),
    "mkfifo": os.mkfifo,
    "mknod": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "utime now": lambda path: _utime(path, None),
    "utime": lambda path: _utime(path, (10**18, 10**18 + 1)),
    "utime of a link": lambda path: _utime(path, (10**18, 10**18 + 1), follows=False),
    "stat": lambda path: _kind(path, follows=True),
    "lstat": lambda path: _kind(path, follows=False),
    "list": _listed,
    "access to read": lambda path: os.access(path, os.R_OK),
    "access to write": lambda path: os.access(path, os.W_OK),
    "access to search": lambda path: os.access(path, os.X_OK),
    "chdir": _chdir,
}


def _rename(flags: RenameFlags, old: str, new: str) -> None:
    libc.call("renameat2", _AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), int(flags))


PAIRED: dict[str, Callable[[str, str], object]] = {
    "rename": os.rename,
    "rename to a free name": partial(_rename, RenameFlags.NOREPLACE),
    "exchange": partial(_rename, RenameFlags.EXCHANGE),
    "link": lambda old, new: os.link(old, new, follow_symlinks=False),
}
_OLD = (
    "missing", "directory", "full directory", "pin", "link to a directory", "dangling link",
    "itself", "below a pin", "below a link to itself", "name of 256 bytes",
    "root's in the own directory", "root's in a sticky directory",
    "a stranger's in a sticky directory", "in root's closed directory",
)  # fmt: skip
_NEW = (
    "missing", "directory", "full directory", "pin", "link to a pin", "dangling link",
    "directory with two dots", "below a pin", "below a link", "below what is missing",
    "below a link to itself", "name of 255 bytes", "name of 256 bytes", "path of 4096 bytes",
    "name with a dot", "in root's directory", "new in a sticky directory",
    "root's in a sticky directory", "itself", "elsewhere", "below the directory",
)  # fmt: skip
_PAIR_PATHS = PATHS | {"elsewhere": "/dev/shm/nowhere", "below the directory": "dir/sub/new"}


@dataclass(frozen=True)
class Case:
    """A call with one path or two, by a user."""

    call: str
    paths: tuple[str, ...]
    user: User

    def __str__(self) -> str:
        return f"{self.user.name}: {self.call}, {' to '.join(self.paths)}"

    def run(self, directory: str) -> object:
        """Make the call in the directory of a case."""
        given = [_whole(directory, _PAIR_PATHS[path]) for path in self.paths]
        return PAIRED[self.call](*given) if len(given) > 1 else CALLS[self.call](*given)


def _whole(directory: str, path: str) -> str:
    """The path with the directory before it; a long one is exactly as long as it is to be."""
    if path.startswith("./"):
        wanted = _LONGEST_PATH - 1 if len(path) < _LONGEST_PATH else _LONGEST_PATH
        missing = wanted - len(directory) - len("/missing")
        return f"{directory}{'/.' * (missing // 2)}{'/' * (missing % 2)}/missing"
    return path if path.startswith("/") else f"{directory}/{path}" if path else ""


def cases() -> Iterator[Case]:
    """All of them."""
    for user in (ROOT, THE_OWNER, THE_STRANGER):
        for call in CALLS:
            for path in PATHS:
                yield Case(call, (path,), user)
    for user in (ROOT, THE_OWNER):
        for call in PAIRED:
            for old in _OLD:
                for new in _NEW:
                    yield Case(call, (old, new), user)


def build(directory: Path, pinned: Map) -> None:
    """Make the directory of a case."""
    for name in ("", "dir", "dir/sub", "full", "full/sub", "setgid", "roots", "closed", "sticky",
                 "sticky/roots", "sticky/strangers", "roots_sub"):  # fmt: skip
        (directory / name).mkdir(mode=0o755)
    held = Directory(str(directory))
    for name in ("pin", "roots_pin"):
        held.pin(name, pinned)
        (directory / name).chmod(0o644)
    links = {"link": "dir", "link_to_pin": "pin", "dangling": "nowhere", "loop": "loop"}
    for name, target in links.items():
        (directory / name).symlink_to(target)
    for name in ("", "dir", "dir/sub", "full", "full/sub", "setgid", "pin", *links):
        os.chown(directory / name, OWNER, OWNER, follow_symlinks=False)
    os.chown(directory / "sticky/strangers", STRANGER, STRANGER)
    os.chown(directory / "setgid", OWNER, MEMBER)
    (directory / "setgid").chmod(0o2777)
    (directory / "sticky").chmod(0o1777)
    (directory / "closed").chmod(0o700)
