"""The kernel is asked for all sockets no more often than needed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from support.sockets import Sockets, cookie, sockets

from fusefs.bpf import netlink
from fusefs.tree import seen_sockets
from fusefs.tree.seen_sockets import SeenSockets


@dataclass
class Asked:
    """What was asked: for all sockets of a kind, or for one."""

    all: int = 0
    one: int = 0


@dataclass
class Clock:
    """A time that moves when it is told to."""

    now: float = 1000.0
    counts: Asked = field(default_factory=Asked)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, for what is seen."""
    made = Clock()
    monkeypatch.setattr(seen_sockets, "time", made)
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Counts questions."""
    made = Asked()
    ask = netlink.ask

    def counted(protocol: int, kind: int, flags: int, question: bytes) -> Iterator[bytes]:
        if flags & netlink.DUMP:
            made.all += 1
        else:
            made.one += 1
        return ask(protocol, kind, flags, question)

    monkeypatch.setattr(netlink, "ask", counted)
    return made


@pytest.fixture
def made() -> Iterator[Sockets]:
    """Sockets that are closed at the end."""
    with sockets() as some:
        yield some


def test_one_look_for_many(made: Sockets, asked: Asked, clock: Clock) -> None:
    listener = made.listener()
    cookies = [cookie(made.connected(listener)[0]) for _ in range(100)]
    seen = SeenSockets()
    assert len(seen.recent(cookies)) == 100
    assert (asked.all, asked.one) == (1, 0)
    for number in cookies:
        assert seen.recent([number])[number]["state"] == "established"
    assert (asked.all, asked.one) == (1, 0)


def test_the_others_are_looked_for_along(made: Sockets, asked: Asked, clock: Clock) -> None:
    listener = made.listener()
    cookies = [cookie(made.connected(listener)[0]) for _ in range(100)]
    seen = SeenSockets()
    seen.recent(cookies)
    clock.now += 0.5
    for number in cookies:
        seen.recent([number])
    assert (asked.all, asked.one) == (2, 0)
    clock.now += 5  # nobody has asked for them for long
    seen.recent(cookies[:1])
    seen.recent(cookies[1:2])
    assert (asked.all, asked.one) == (4, 0)


def test_what_is_known_is_asked_for_alone(made: Sockets, asked: Asked, clock: Clock) -> None:
    client, server = made.connected(made.listener())
    seen = SeenSockets()
    number = cookie(server)
    assert seen.current([number])[number]["state"] == "established"
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    assert seen.current([number])[number]["state"] == "close_wait"
    assert (asked.all, asked.one) == (1, 1)
    server.close()
    assert seen.current([number]) == {}


def test_what_is_not_found_is_not_looked_for_again_at_once(asked: Asked, clock: Clock) -> None:
    seen = SeenSockets()
    for _ in range(10):
        assert seen.current([1 << 60]) == seen.recent([1 << 60]) == {}
    assert asked.all == 5  # TCP and UDP of both families, and Unix sockets
    clock.now += 0.1
    assert seen.current([1 << 60]) == {}
    assert asked.all == 10


def test_no_more_is_remembered_than_is_bounded(
    monkeypatch: pytest.MonkeyPatch, asked: Asked, clock: Clock
) -> None:
    monkeypatch.setattr(seen_sockets, "_REMEMBERED", 10)
    seen = SeenSockets()
    wanted = [(1 << 60) + number for number in range(100)]
    assert seen.recent(wanted) == {}
    assert len(seen._seen) == 10
