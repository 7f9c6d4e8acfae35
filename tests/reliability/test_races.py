"""Who swaps directories, links and pins as fast as can be, gets nothing done that they could not do
themselves: not by what they ask for meanwhile, and not by what a careful root does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.arena import Arena, compile_swapping, swapping
from support.intruding import Tally, intrude, work
from support.mounting import Mount, mounted, mounted_bpffs, temporary_directory
from support.people import ROOT, STRANGER, THE_STRANGER, Person
from support.soaking import Figure
from support.watching import watching


@dataclass(frozen=True)
class Race:
    """What is swapped, as swapping.c takes it: names in the user's directory; in bpffs, or through
    the mount."""

    name: str
    kind: str
    names: tuple[str, ...]
    by_mount: bool = False


RACES = (
    Race("a pin and one of root's", "exchange", ("mine", "roots")),
    Race("the same through the mount", "exchange", ("mine", "roots"), by_mount=True),
    Race("a pin and one of another user's", "exchange", ("mine", "neighbours")),
    Race("a pin and a link to root's", "exchange", ("mine", "to_secret")),
    Race("in a sticky directory", "exchange", ("sticky/mine", "sticky/to_secret")),
    Race("made anew as a link and as a pin", "replace", ("mine", "to_secret", "kept")),
    Race("a directory and a link to root's", "exchange", ("own", "to_vault")),
    Race("a directory and a link out of bpffs", "exchange", ("own", "to_elsewhere")),
    Race("a directory and one of root's", "exchange", ("own", "shut")),
    Race("the same two through the mount", "exchange", ("own", "shut"), by_mount=True),
    Race("deep on the path", "exchange", ("a/b", "a/shut")),
    Race("a link and a pin of root's", "exchange", ("link", "roots")),
    Race("moved away and back", "move", ("own", "away/own")),
    Race("covered in a mount namespace", "cover", ("own",)),
)


@pytest.fixture(scope="module")
def mount() -> Iterator[Mount]:
    """A mount for all users."""
    with mounted_bpffs() as source:
        source.chmod(0o755)
        with mounted(source, ["-o", "allow_other"]) as made:
            yield made


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Path]:
    """Another bpffs."""
    with mounted_bpffs() as source:
        yield source


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """What swaps."""
    with temporary_directory() as directory:
        yield compile_swapping(directory)


@pytest.fixture
def arena(mount: Mount, elsewhere: Path) -> Iterator[Arena]:
    """A directory of a user, and what is root's around it."""
    made = Arena(mount, "home", "vault", elsewhere)
    made.build()
    try:
        yield made
    finally:
        made.clear()


@pytest.mark.soak(short=0.2)
@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
def test_nothing_is_gained(
    arena: Arena, program: Path, race: Race, span: float, figure: Figure
) -> None:
    mount = arena.mount
    where = (mount.path if race.by_mount else mount.source) / arena.home
    intruder, root = Person(THE_STRANGER), Person(ROOT)
    try:
        with (
            watching(mount.path / arena.home, mount.path / arena.home / "own"),
            swapping(program, race.kind, race.names, where) as swaps,
            ThreadPoolExecutor(2) as pool,
        ):
            began = time.monotonic()
            by_user = pool.submit(intruder.tell, intrude, mount.path, arena.home, span)
            by_root = pool.submit(root.tell, work, mount.path, arena.home, STRANGER, span)
            users, roots = by_user.result().result, by_root.result().result
            took = time.monotonic() - began
    finally:
        intruder.close()
        root.close()
    assert isinstance(users, Tally) and isinstance(roots, Tally)
    assert not users.leaks
    assert not users.strange and not roots.strange
    arena.check()
    assert swaps[0] and users.done and users.refused and roots.done
    figure(f"swaps, {race.name}", swaps[0])
    figure("a second", round(swaps[0] / took))
    figure("operations of the user done", users.done)
    figure("and refused", users.refused)
    figure("operations of root", roots.done + roots.refused)
