"""A directory of a user in a bpffs, and in and around it what is root's, to be fought over."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fusefs.bpf.map import Map, MapType
from support.intruding import SECRET_KEY
from support.maps import dump, make_map, pin, u32, u64
from support.mounting import Mount
from support.network import PROGRAMS
from support.people import GROUP, MEMBER, STRANGER
from support.shell import ENVIRONMENT, checked

# What is secret of each map: its value has the mark, too.
_SECRET_VALUE = 17_770_001_700_000


@dataclass(frozen=True)
class Sentinel:
    """A map of somebody else, which nobody may read, and how it was: a pin may be renamed."""

    bpf_map: Map
    inode: int
    rights: tuple[int, int, int]
    contents: dict[bytes, bytes]


@dataclass
class Arena:
    """`home` is the user's directory, by its name in the bpffs and in the mount; `vault` is root's
    alone, and `elsewhere` another bpffs."""

    mount: Mount
    home: str
    vault: str
    elsewhere: Path
    sentinels: list[Sentinel] = field(default_factory=list)
    closed: dict[int, list[str]] = field(default_factory=dict)  # root's directories, by inode

    @property
    def behind(self) -> Path:
        """The user's directory in bpffs."""
        return self.mount.source / self.home

    def build(self) -> None:
        """Put all there."""
        behind, vault = self.behind, self.mount.source / self.vault
        for directory in (vault, vault / "c", self.elsewhere / "own"):
            directory.mkdir(mode=0o700)
        for name in ("", "own", "shut", "a", "a/b", "a/b/c", "a/shut", "a/shut/c", "away"):
            (behind / name).mkdir(mode=0o755)
        (behind / "sticky").mkdir()
        (behind / "sticky").chmod(0o1777)
        for number, name in enumerate(("mine", "own/pin", "a/b/c/pin", "sticky/mine")):
            self._own(behind / name, number)
        self._table(behind / "table")
        os.link(behind / "mine", behind / "kept")
        links = {"to_secret": "secret", "to_vault": "", "to_shut": "c"}
        for name, target in links.items():
            (behind / name).symlink_to(Path("..", self.vault, target))
        (behind / "sticky/to_secret").symlink_to(f"../../{self.vault}/secret")
        (behind / "to_elsewhere").symlink_to(self.elsewhere / "own")
        (behind / "link").symlink_to("nowhere")
        for name in ("roots", "shut/pin", "a/shut/c/pin", "sticky/roots_too"):
            self._secret(behind / name, 0, 0)
        self._secret(behind / "neighbours", MEMBER, GROUP)
        for name in ("secret", "pin", "c/pin"):
            self._secret(vault / name, 0, 0)
        theirs = [behind / "shut", behind / "a/shut", behind / "a/shut/c"]
        for each in theirs:
            each.chmod(0o700)
        self._give_home({*theirs, behind / "sticky"})
        for directory in (vault, vault / "c", *theirs):
            self.closed[directory.stat().st_ino] = sorted(os.listdir(directory))

    def _own(self, path: Path, number: int) -> None:
        own = make_map(max_entries=1000)
        own.update(u32(1), u64(11 + number))
        pin(path, own)
        path.chmod(0o600)
        os.chown(path, STRANGER, STRANGER)

    def _table(self, path: Path) -> None:
        with make_map(max_entries=1000) as inner:
            table = Map.create(
                MapType.ARRAY_OF_MAPS, key_size=4, value_size=4, max_entries=2, inner=inner
            )
        pin(path, table)
        os.chown(path, STRANGER, STRANGER)

    def _secret(self, path: Path, uid: int, gid: int) -> None:
        made = make_map(max_entries=1000)
        made.update(u32(int(SECRET_KEY)), u64(_SECRET_VALUE))
        pin(path, made)
        path.chmod(0o600)
        os.chown(path, uid, gid)
        inode = path.stat().st_ino
        self.sentinels.append(Sentinel(made, inode, _rights(path), dump(made)))

    def _give_home(self, theirs: set[Path]) -> None:
        """All directories and links in it but some are the user's."""
        for parent, directories, files in os.walk(self.behind):
            for name in directories + files:
                path = Path(parent, name)
                if path not in theirs and not stat.S_ISREG(path.lstat().st_mode):
                    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
        os.chown(self.behind, STRANGER, STRANGER)

    def check(self) -> None:
        """What is somebody else's is as it was."""
        found = {}
        for parent, _, files in os.walk(self.mount.source):
            for path in (Path(parent), *(Path(parent, name) for name in files)):
                with contextlib.suppress(PermissionError):  # maps.debug
                    found[path.lstat().st_ino] = path
        for sentinel in self.sentinels:
            assert dump(sentinel.bpf_map) == sentinel.contents
            assert _rights(found[sentinel.inode]) == sentinel.rights
        for inode, names in self.closed.items():
            assert sorted(os.listdir(found[inode])) == names
            assert _rights(found[inode]) == (0o700, 0, 0)
        assert os.listdir(self.elsewhere / "own") == []

    def clear(self) -> None:
        """Take all away."""
        for name in (self.home, self.vault):
            shutil.rmtree(self.mount.source / name)
        shutil.rmtree(self.elsewhere / "own")


def _rights(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def compile_swapping(directory: Path) -> Path:
    """Compile swapping.c."""
    result = directory / "swapping"
    checked("clang", "-O2", PROGRAMS / "swapping.c", "-o", result)
    return result


@contextlib.contextmanager
def swapping(
    program: Path, kind: str, names: Sequence[Path | str], cwd: Path
) -> Iterator[list[int]]:
    """Somebody who swaps names in `cwd` meanwhile; how often, once they have ended."""
    user = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
    swaps: list[int] = []
    with subprocess.Popen(
        [*user, program, kind, *names],
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield swaps
        finally:
            told, _ = process.communicate(timeout=10)
            swaps.append(int(told))
    assert process.returncode == 0
