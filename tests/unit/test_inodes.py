"""Inode numbers: the same for the same thing, and never one for two."""

from __future__ import annotations

import gc
import stat
import sys
import time
from collections.abc import Hashable

import pytest

from fusefs import inodes
from fusefs.inodes import ROOT, InodeTable
from fusefs.tree.alike import Origin, StandIn
from fusefs.tree.node import Attributes, Node


class Thing(Node):
    """Something with an identity."""

    def attributes(self) -> Attributes:
        return Attributes(0, 0, 0, 0, 0, 0)


def table() -> InodeTable:
    """A table that has a root alone."""
    return InodeTable(Thing("root"))


def test_the_root_has_its_number() -> None:
    assert table().enter(Thing("root")).number == ROOT
    assert table().number("root") == ROOT


def test_a_number_is_known_before_there_is_an_inode() -> None:
    made = table()
    numbers = {name: made.number(name) for name in map(str, range(1000))}
    assert ROOT not in numbers.values()
    for name, number in numbers.items():
        assert made.enter(Thing(name)).number == number
    assert len(made) == 1001


def test_an_inode_stays_as_long_as_it_is_referred_to() -> None:
    made = table()
    inode = made.enter(Thing("one"))
    inode.lookups += 2
    made.forget(inode.number, 1)
    assert made.enter(Thing("one")) is inode
    made.forget(inode.number, 1)
    assert len(made) == 1
    assert made.enter(Thing("one")) is not inode


def test_no_two_have_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inodes, "_MADE", 4)
    made = table()
    entered = {name: made.enter(Thing(name)) for name in map(str, range(20))}
    assert len({inode.number for inode in entered.values()}) == 20
    first = next(iter(entered.values()))
    first.lookups = 1
    made.forget(first.number, 1)
    for name, inode in list(entered.items())[1:]:
        assert made.enter(Thing(name)) is inode
        assert made[made.number(name)] is inode


def test_an_inode_that_was_renamed_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    for of_all in (inodes._MADE, 4):  # where numbers are made of identities, and where given
        monkeypatch.setattr(inodes, "_MADE", of_all)
        made = table()
        for name in map(str, range(10)):
            made.enter(Thing(name)).lookups = 1
        old = made.enter(Thing("1"))
        made.renamed("1")
        made.renamed("not there")
        new = made.enter(Thing("1"))
        new.lookups = 1
        for get in (old.attributes, lambda old=old: old.node):
            with pytest.raises(OSError, match="Stale"):
                get()
        assert new.number != old.number
        assert made[old.number] is old
        made.forget(old.number, 1)
        assert made.enter(Thing("1")) is new
        assert made.number("1") == new.number
        made.renamed("1")
        made.forget(new.number, 1)
        assert made.enter(Thing("1")) is not new
        assert len(made) == 11


class Many(Origin):
    """What has children, each of which shows its key."""

    file_type = stat.S_IFREG

    def identity(self, key: bytes) -> Hashable:
        return "many", key

    def node(self, key: bytes) -> Thing:
        return Thing(self.identity(key))

    def shared(self) -> Attributes:
        return Attributes(self.file_type, 1, 2, 3, 0, 0)


def stand_in(key: bytes, contents: bytes, mtime_ns: int) -> StandIn:
    """What stands in for a child that was seen just now."""
    return StandIn(Many(), key, contents, mtime_ns, time.monotonic())


def test_a_stand_in_has_the_inode_of_its_node() -> None:
    made = table()
    inode = made.enter(stand_in(b"1", b"one", 5))
    assert inode.attributes() == Attributes(stat.S_IFREG, 1, 2, 3, 5, 5, size=3)
    assert made.enter(Many().node(b"1")) is inode
    assert inode.node.identity == ("many", b"1")
    assert made.enter(stand_in(b"1", b"one", 5)) is inode
    assert made.enter(stand_in(b"2", b"one", 5)) is not inode


def test_a_newer_stand_in_is_believed() -> None:
    made = table()
    inode = made.enter(stand_in(b"1", b"one", 5))
    made.enter(stand_in(b"1", b"one", 7))
    assert (inode.attributes().size, inode.attributes().mtime_ns) == (3, 5)
    before = time.time_ns()
    made.enter(stand_in(b"1", b"three", 7))
    assert inode.attributes().size == 5
    assert inode.attributes().mtime_ns >= before


def test_many_inodes_do_not_make_the_search_for_garbage_long() -> None:
    made = table()
    for number in range(50_000):
        made.enter(Thing(str(number))).lookups += 1
    exempt = gc.get_freeze_count()
    try:
        assert exempt > 40_000
        for number in range(50_000):
            made.forget(made.number(str(number)), 1)
        assert gc.get_freeze_count() < exempt - 30_000
        assert sys.getsizeof(made._by_number) < 50_000 * 8  # it was 2 MB
    finally:
        gc.unfreeze()


def test_an_older_stand_in_tells_nothing() -> None:
    made = table()
    older = stand_in(b"1", b"one", 5)
    inode = made.enter(stand_in(b"1", b"three", 7))
    made.enter(older)
    assert (inode.attributes().size, inode.attributes().mtime_ns) == (5, 7)
