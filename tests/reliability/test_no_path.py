"""Whatever is asked for, the mount reaches what is in bpffs by a descriptor of its directory and a
name, which is not followed: by no path of which somebody could have swapped a part."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from support.arena import Arena
from support.intruding import intrude, work
from support.mounting import COMMAND, Mount
from support.people import ROOT, STRANGER, THE_STRANGER, Person
from support.watching import watching

_TRACED = "trace=%file,bpf,inotify_add_watch"
_CALL = re.compile(r"^\d+ +(\w+)\((.*)$")
_TEXT = re.compile(r'(?:(AT_FDCWD|\d+)(?:<[^>]*>)?, )?"((?:[^"\\]|\\.)*)"')
# Calls that never follow the last name.
_NEVER = {"mkdirat", "unlinkat", "symlinkat", "renameat", "renameat2", "readlinkat"}
_DESCRIPTOR = re.compile(r"/proc/(self|\d+)/fd/\d+(/[^/]*)?")


def _is_safe(call: str, rest: str, path: str) -> bool:
    """Whether somebody who swaps names cannot lead such a call elsewhere."""
    if _DESCRIPTOR.fullmatch(path) or path in ("", "."):
        return True
    if "/" in path:  # as what the target of a link leads to, with the rights of who made it
        return call == "openat2" and ("RESOLVE_BENEATH" in rest or "RESOLVE_NO_SYMLINKS" in rest)
    return call in _NEVER or any(
        word in rest for word in ("O_NOFOLLOW", "AT_SYMLINK_NOFOLLOW", "RESOLVE_BENEATH")
    )


def _seen(log: str, place: str) -> tuple[Counter[str], list[str]]:
    """The calls that concern `place`, by what they are, and those that are not safe."""
    counts: Counter[str] = Counter()
    unsafe = []
    for line in log.splitlines():
        if not (match := _CALL.match(line)):
            continue  # the end of a call that was interrupted by another's line
        call, rest = match.groups()
        for _, path in _TEXT.findall(rest)[: 1 + call.startswith("renameat")]:
            if place in line or _DESCRIPTOR.fullmatch(path):
                counts[call] += 1
                text = call == "symlinkat"  # the text of a link is no path yet
                if not text and not _is_safe(call, rest, path):
                    unsafe.append(line)
    return counts, unsafe


def test_names_are_reached_by_descriptors(
    bpffs: Path, tmp_path: Path, mounter: Callable[..., Mount]
) -> None:
    log = tmp_path / "log"
    strace = ["strace", "-f", "-y", "-qq", "-s", "4096", "-e", _TRACED, "-o", str(log)]
    bpffs.chmod(0o755)
    mount = mounter("-o", "allow_other", command=[*strace, *COMMAND])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arena = Arena(mount, "home", "vault", elsewhere)
    arena.build()
    begun = len(log.read_text())
    intruder, root = Person(THE_STRANGER), Person(ROOT)
    try:
        with watching(mount.path / "home"):
            for person, function, more in ((intruder, intrude, ()), (root, work, (STRANGER,))):
                tally = person.tell(function, mount.path, "home", *more, 0.01).result
                assert tally.done and not tally.leaks
            (arena.behind / "told").mkdir()
    finally:
        intruder.close()
        root.close()
        arena.clear()
    assert mount.sh("chmod 700 . && touch . && chown 0 . && df .").code == 0
    counts, unsafe = _seen(log.read_text()[begun:], str(bpffs))
    assert not unsafe, unsafe[:5]
    assert {"openat2", "mkdirat", "unlinkat", "symlinkat", "renameat", "bpf", "chmod"} <= {*counts}
