"""What can be done in directories of bpffs, and to them; in a mount it is mostly done the same way.

A directory has `sub` and `empty`, which are directories, `link`, a symbolic link, and `pin`. Beside
it there is `open`, where everybody may do all, with a directory `other` and a pin `map`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

from fusefs.bpf import libc
from fusefs.bpf.bpffs import Directory, RenameFlags
from fusefs.bpf.map import Map
from support import by_files, by_hand
from support.people import GROUP
from support.rights import Made, Operation

_AT_FDCWD = -100


def _made(path: str, name: str, make: Callable[[str], object]) -> Made:
    """What became of a name."""
    full = os.path.join(path, name)
    make(full)
    return Made.of(full)


def _make_directory(path: str) -> Made:
    return _made(path, "new", os.mkdir)


def _make_link(path: str) -> Made:
    return _made(path, "new", functools.partial(os.symlink, "nowhere"))


def _make_file(path: str) -> None:
    os.close(os.open(os.path.join(path, "new"), os.O_WRONLY | os.O_CREAT, 0o666))


def _make_fifo(path: str) -> None:
    os.mkfifo(os.path.join(path, "new"))


def _make_hard_link(path: str, name: str) -> None:
    os.link(os.path.join(path, name), os.path.join(path, "new"), follow_symlinks=False)


def _exchange(path: str, name: str, other: str) -> None:
    ends = (os.fsencode(os.path.join(path, each)) for each in (name, other))
    one, two = ends
    libc.call("renameat2", _AT_FDCWD, one, _AT_FDCWD, two, int(RenameFlags.EXCHANGE))


def _change_mode(path: str, name: str, mode: int) -> Made:
    """To a mode, and what came of that: of a pin without the x bits, which the directory that it is
    shown as has by itself."""
    made = _made(path, name, lambda full: os.chmod(full, mode))
    return Made((*made[:2], made[2] & ~0o111)) if name == "pin" else made


def _give(path: str, name: str, uid: int, gid: int) -> Made:
    made = _made(path, name, lambda full: os.lchown(full, uid, gid))
    return Made((*made[:2], made[2] & ~0o111)) if name == "pin" else made


def _give_own(path: str, name: str) -> Made:
    """To the caller."""
    return _give(path, name, os.geteuid(), os.getegid())


def _touch(path: str, name: str, now: bool = False) -> None:
    full = os.path.join(path, name)
    os.utime(full, None if now else (10**9, 10**9), follow_symlinks=False)


def _stand_in(path: str) -> None:
    """Go inside, and look at what is there."""
    os.chdir(path)
    try:
        os.lstat("sub")
    finally:
        os.chdir("/")


def _set_attribute(path: str) -> None:
    os.setxattr(path, "user.sample", b"value")


def _pin(path: str) -> Made:
    """Pin what is pinned beside."""
    with Map(by_hand.get(os.path.join(path, "../open/map"))) as bpf_map:
        Directory(path).pin("new", bpf_map)
    return Made.of(os.path.join(path, "new"))


def _pin_by_id(path: str, root: str, number: int, bpffs: str) -> Made:
    with open(f"{root}/.by-id/maps/{number}/pin", "w") as file:
        file.write(f"{os.path.relpath(path, root)}/new\n")
    return Made.of(os.path.join(bpffs, os.path.relpath(path, root), "new"))


def _same(what: str, act: Callable[..., object], /, **how: object) -> Operation:
    bound = functools.partial(act, **how)
    return Operation(what, bound, bound, changes=True)


def operations(mount: Path, bpffs: Path, number: int) -> list[Operation]:
    """All; `number` is the id of the map that is pinned beside."""
    return [
        _same("list", by_files.list_names),
        _same("look at what is in it", by_files.look, name="sub"),
        _same("stand in it", _stand_in),
        _same("mkdir", _make_directory),
        _same("ln -s", _make_link),
        _same("create a file", _make_file),
        _same("mkfifo", _make_fifo),
        _same("ln of a pin", _make_hard_link, name="pin"),
        _same("ln of a link", _make_hard_link, name="link"),
        _same("rmdir", by_files.remove_directory, name="sub"),
        _same("rm of a link", by_files.remove, name="link"),
        _same("readlink", by_files.link_target, name="link"),
        _same("mv of a directory", by_files.rename, name="sub", new_name="new"),
        _same("mv of a link", by_files.rename, name="link", new_name="new"),
        _same("mv of a pin", by_files.rename, name="pin", new_name="new"),
        _same("mv over a directory", by_files.rename, name="sub", new_name="empty"),
        _same("mv out of it", by_files.rename, name="sub", new_name="../open/new"),
        _same("mv of a pin out of it", by_files.rename, name="pin", new_name="../open/new"),
        _same("mv into it", by_files.rename, name="../open/other", new_name="new"),
        _same("exchange", _exchange, name="sub", other="link"),
        _same("exchange of a pin", _exchange, name="sub", other="pin"),
        _same("chmod", _change_mode, name="", mode=0o751),
        _same("chmod g+s", _change_mode, name="", mode=0o2775),
        _same("chmod of a directory in it", _change_mode, name="sub", mode=0o1770),
        _same("chmod of a pin", _change_mode, name="pin", mode=0o640),
        _same("chown", _give_own, name=""),
        _same("chgrp", _give, name="", uid=-1, gid=GROUP),
        _same("chown of a link", _give_own, name="link"),
        _same("chgrp of a pin", _give, name="pin", uid=-1, gid=GROUP),
        _same("chown of a pin", _give_own, name="pin"),
        _same("touch -d", _touch, name=""),
        _same("touch", _touch, name="", now=True),
        _same("touch -d of a pin", _touch, name="pin"),
        _same("touch of a pin", _touch, name="pin", now=True),
        _same("touch -d of a link", _touch, name="link"),
        _same("setfattr", _set_attribute),
        _same("df", os.statvfs),
        Operation(
            "unpin",
            functools.partial(by_files.remove, name="pin"),
            functools.partial(by_files.remove_directory, name="pin"),
            changes=True,
        ),
        Operation(
            "pin",
            _pin,
            functools.partial(_pin_by_id, root=str(mount), number=number, bpffs=str(bpffs)),
            changes=True,
        ),
    ]
