"""Comparing what the kernel lets a user do in bpffs with what a mount lets them do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from support.people import Outcome, Person, User
from support.soaking import Figure

Act = Callable[..., object]


@dataclass(frozen=True)
class Operation:
    """Something that is done to a pin or a directory: `direct` by the kernel alone, at its path in
    bpffs, and `through` a mount, at the path there. `changes` tells whether it leaves a trace."""

    name: str
    direct: Act
    through: Act
    changes: bool = False


class Place(Protocol):
    """What operations are done to."""

    @property
    def mode(self) -> int:
        """Its permission bits in bpffs."""

    def paths(self) -> tuple[Path, Path]:
        """Where it is in bpffs, and where in the mount."""

    def renew(self) -> None:
        """Have it be as it was, though an operation has changed it."""


@dataclass(frozen=True)
class Case:
    """What was compared."""

    what: str
    mode: int
    user: User
    operation: str

    def __str__(self) -> str:
        return f"{self.operation} of a {self.what} {self.mode:04o} by {self.user.name}"


@dataclass
class Comparison:
    """What was found. `less` has the cases that the kernel allows and the mount does not, and
    `more` the others."""

    both: int = 0
    neither: int = 0
    less: list[Case] = field(default_factory=list)
    more: list[Case] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)

    def compare(self, what: str, place: Place, operation: Operation, person: Person) -> None:
        """Have a user do something, in both ways."""
        bpffs, mount = place.paths()
        direct = person.tell(operation.direct, str(bpffs))
        if direct.allowed and operation.changes:
            place.renew()
            bpffs, mount = place.paths()
        through = person.tell(operation.through, str(mount))
        if through.allowed and operation.changes:
            place.renew()
        self._note(Case(what, place.mode, person.user, operation.name), direct, through)

    def _note(self, case: Case, direct: Outcome, through: Outcome) -> None:
        if direct.allowed and through.allowed:
            self.both += 1
            if isinstance(direct.result, Made) and direct.result != through.result:
                self.unlike.append(f"{case}: {through}, and in bpffs {direct}")
        elif direct.allowed:
            self.less.append(case)
        elif through.allowed:
            self.more.append(case)
        else:
            self.neither += 1

    def check(self, reasons: Mapping[str, Callable[[Case], bool]]) -> None:
        """The mount allows nothing that the kernel does not; and for each thing that it does not
        allow there is a reason, which tells where it holds. There is none too many."""
        assert not self.more, "\n".join(map(str, self.more))
        assert not self.unlike, "\n".join(self.unlike)
        used: set[str] = set()
        left: list[str] = []
        for case in self.less:
            found = {reason for reason, holds in reasons.items() if holds(case)}
            used |= found
            if not found:
                left.append(str(case))
        assert not left, "\n".join(left)
        assert used == {*reasons}, {*reasons} - used

    @property
    def total(self) -> int:
        """How many cases were compared."""
        return self.both + self.neither + len(self.less) + len(self.more)

    def tell(self, figure: Figure) -> None:
        """The figures."""
        figure("cases compared", self.total)
        figure("allowed by both", self.both)
        figure("allowed by neither", self.neither)
        figure("allowed by the kernel alone, for a reason", len(self.less))
        figure("allowed by the mount alone", len(self.more))


class Made(tuple[int, int, int]):
    """Owner, group and mode of what was made, which are to be the same in both ways."""

    __slots__ = ()

    @classmethod
    def of(cls, path: str) -> Made:
        """What is at a path, which is not followed."""
        status = os.lstat(path)
        return cls((status.st_uid, status.st_gid, status.st_mode & 0o7777))
