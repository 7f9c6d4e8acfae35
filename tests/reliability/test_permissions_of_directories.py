"""No user can do more in a directory of bpffs through the mount than in bpffs itself, and what they
make belongs to them there and here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.directory_operations import operations
from support.maps import make_map, pin
from support.mounting import Mount, mounted, mounted_bpffs
from support.people import (
    GROUP,
    MEMBER,
    ORDINARY,
    OWNER,
    ROOT,
    ROOTS,
    STRANGER,
    SUPPLEMENTARY,
    Person,
    User,
    people,
)
from support.rights import Case, Comparison
from support.soaking import Figure, passing

from fusefs.bpf.map import Map


@dataclass(frozen=True)
class Kind:
    """What a directory is like: its mode and who has it, and who has what is in it."""

    mode: int
    uid: int
    gid: int
    within: int

    def __str__(self) -> str:
        return f"directory of {self.uid}:{self.gid} with things of {self.within}"


# The sticky bit and setgid, too.
KINDS = (
    Kind(0o755, OWNER, GROUP, OWNER),
    Kind(0o1777, 0, 0, MEMBER),
    Kind(0o2775, OWNER, GROUP, STRANGER),
    Kind(0o733, 0, GROUP, SUPPLEMENTARY),
    Kind(0o500, STRANGER, STRANGER, STRANGER),
)
MORE_KINDS = tuple(
    Kind(mode, uid, gid, within)
    for mode in (
        0o000, 0o500, 0o300, 0o700, 0o750, 0o770, 0o711, 0o755, 0o555, 0o733, 0o775, 0o777,
        0o1777, 0o1770, 0o1775, 0o2775, 0o2777, 0o3777, 0o3770,
    )
    for uid, gid in ((OWNER, GROUP), (0, 0), (0, GROUP), (STRANGER, STRANGER))
    for within in (0, OWNER, MEMBER, STRANGER)
)  # fmt: skip


class Made:
    """A directory, with things in it; `renew` makes another."""

    def __init__(self, mount: Mount, kind: Kind, sample: Map) -> None:
        self._mount = mount
        self._kind = kind
        self._sample = sample
        self._serial = 0
        self.renew()

    @property
    def mode(self) -> int:
        return self._kind.mode

    def paths(self) -> tuple[Path, Path]:
        where = f"{self._serial}/it"
        return self._mount.source / where, self._mount.path / where

    def renew(self) -> None:
        self.remove()
        self._serial += 1
        path, _shown = self.paths()
        path.parent.mkdir()
        path.parent.chmod(0o755)
        beside = path.parent / "open"
        for directory in (path, path / "sub", path / "empty", beside, beside / "other"):
            directory.mkdir()
        (path / "link").symlink_to("nowhere")
        for at in (path / "pin", beside / "map"):
            pin(at, self._sample)
        for name in ("sub", "empty", "link", "pin"):
            os.lchown(path / name, self._kind.within, self._kind.within)
        for all_may in (beside, beside / "other", beside / "map"):
            all_may.chmod(0o777 if all_may.is_dir() else 0o666)
        (beside / "other").chmod(0o777)
        os.chown(path, self._kind.uid, self._kind.gid)
        path.chmod(self._kind.mode)

    def remove(self) -> None:
        """Remove it, and what is left in it."""
        path, _shown = self.paths()
        for parent, directories, files in os.walk(path.parent, topdown=False):
            for name in (*directories, *files):
                left = Path(parent, name)
                left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
        if path.parent.exists():
            path.parent.rmdir()


@pytest.fixture(scope="module")
def everybody() -> Iterator[dict[User, Person]]:
    with people([*ORDINARY, *ROOTS]) as made:
        yield made


@pytest.fixture(scope="module")
def mount(everybody: object) -> Iterator[Mount]:
    with mounted_bpffs() as source:
        source.chmod(0o755)
        with mounted(source, ["-o", "allow_other"]) as made:
            yield made


# Why the mount allows less than bpffs, and where.
LESS: dict[str, Callable[[Case], bool]] = {
    "capabilities in a user namespace, which are for what is mapped there, do not count": (
        lambda case: bool(case.user.mapped)
    ),
    "there are no hard links: a pin is a directory here": lambda case: (
        case.operation in {"ln of a pin", "ln of a link"}
    ),
    "objects are pinned from .by-id/, which is root's": lambda case: (
        case.operation == "pin" and case.user is not ROOT
    ),
    "a directory, as which a pin is shown, has to be written to be moved to another one": (
        lambda case: case.operation == "mv of a pin out of it"
    ),
    "pyfuse3 does not tell the time of now from another one, which only the owner may set": (
        lambda case: case.operation in {"touch", "touch of a pin"}
    ),
}


@pytest.mark.soak(short=1)
def test_nobody_can_do_more_in_a_directory_than_bpffs_lets_them(
    mount: Mount, everybody: dict[User, Person], span: float, figure: Figure
) -> None:
    found = Comparison()
    with make_map() as sample:
        every = operations(mount.path, mount.source, sample.info.id)
        for turn in passing(span):
            kinds = KINDS if turn == 0 else MORE_KINDS[(turn - 1) % len(MORE_KINDS) :][:1]
            for kind in kinds:
                made = Made(mount, kind, sample)
                for person in everybody.values():
                    for operation in every:
                        found.compare(str(kind), made, operation, person)
                made.remove()
    found.check(LESS)
    found.tell(figure)
