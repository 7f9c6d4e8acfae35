"""Sockets are found by their cookies."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sockets import Sockets, cookie, sockets, text
from support.waiting import eventually

from fusefs.bpf import netlink, socket_diag


@pytest.fixture
def made() -> Iterator[Sockets]:
    """Sockets that are closed at the end."""
    with sockets() as some:
        yield some


def test_every_kind_is_found(made: Sockets, tmp_path: Path) -> None:
    every = made.every(tmp_path)
    found = socket_diag.find([cookie(one) for one, _ in every.values()])
    told = {name: found[cookie(one)].members() for name, (one, _) in every.items()}
    assert told == {name: wanted for name, (_, wanted) in every.items()}


def test_each_is_found_alone_and_again(made: Sockets, tmp_path: Path) -> None:
    for name, (one, wanted) in made.every(tmp_path).items():
        found = socket_diag.find([cookie(one)])
        assert found[cookie(one)].members() == wanted, name
        assert socket_diag.again(found[cookie(one)]) == found[cookie(one)], name


def test_ipv4_on_an_ipv6_socket(made: Sockets) -> None:
    listener = made.made(socket.AF_INET6, socket.SOCK_STREAM)
    listener.bind(("::", 0))
    listener.listen()
    client = made.enter_context(socket.create_connection(("127.0.0.1", listener.getsockname()[1])))
    server = made.enter_context(listener.accept()[0])
    found = socket_diag.find([cookie(listener), cookie(server)])
    port, there = listener.getsockname()[1], client.getsockname()[1]
    assert found[cookie(listener)].local == f"[::]:{port}"
    assert found[cookie(server)].local == f"[::ffff:127.0.0.1]:{port}"
    assert found[cookie(server)].remote == f"[::ffff:127.0.0.1]:{there}"
    assert socket_diag.again(found[cookie(server)]) == found[cookie(server)]


def test_states_change_and_sockets_go(made: Sockets) -> None:
    client, server = made.connected(made.listener())
    known = socket_diag.find([cookie(server)])[cookie(server)]
    client.shutdown(socket.SHUT_WR)

    def state() -> bool:
        now = socket_diag.again(known)
        return now is not None and now.state == "close_wait"

    eventually("it has seen the end", state)
    number = cookie(server)
    server.close()
    assert socket_diag.again(known) is None
    assert number not in socket_diag.find([number])


def test_one_of_many_that_share_a_port(made: Sockets) -> None:
    first = made.listener(shared=True)
    port = first.getsockname()[1]
    all_of_them = [first, *(made.listener(port=port, shared=True) for _ in range(20))]
    found = socket_diag.find([cookie(one) for one in all_of_them])
    assert len(found) == 21
    assert {one.local for one in found.values()} == {text(first.getsockname())}
    for known in found.values():
        assert socket_diag.again(known) in (known, None)  # never another


def test_sockets_of_other_namespaces_are_not_found(made: Sockets) -> None:
    def bound() -> socket.socket:
        one = socket.socket(type=socket.SOCK_DGRAM)
        one.bind(("0.0.0.0", 0))
        return one

    foreign, own = made.apart(bound), made.bound()
    assert set(socket_diag.find([cookie(foreign), cookie(own)])) == {cookie(own)}


def test_names_of_unix_sockets(made: Sockets, tmp_path: Path) -> None:
    abstract = b"\0fusefs-%d-a\0b\xff" % os.getpid()
    path = os.fsencode(tmp_path) + b"/\xfe\xe9"
    for name, shown in (
        (abstract, "@" + abstract[1:-1].decode() + "\\xff"),
        (path, str(tmp_path) + "/\\xfe\\xe9"),
    ):
        client, server = made.unix(name)
        found = socket_diag.find([cookie(client), cookie(server)])
        assert (found[cookie(client)].remote, found[cookie(server)].local) == (shown, shown)
        assert "remote" not in found[cookie(server)].members()


def test_nothing_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "ask", None)
    assert socket_diag.find([]) == {}


def test_it_stops_when_all_are_found(made: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = made.listener()
    asked = []
    ask = netlink.ask

    def counted(protocol: int, kind: int, flags: int, question: bytes) -> Iterator[bytes]:
        asked.append(question)
        return ask(protocol, kind, flags, question)

    monkeypatch.setattr(netlink, "ask", counted)
    assert len(socket_diag.find([cookie(listener)])) == 1
    assert len(asked) == 1
    assert socket_diag.find([1 << 60]) == {}
    assert len(asked) == 1 + 5  # TCP and UDP of both families, and Unix sockets


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EPERM, errno.EAGAIN, errno.ENOBUFS])
def test_what_the_kernel_does_not_tell_is_not_found(
    made: Sockets, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    listener = made.listener()
    known = socket_diag.find([cookie(listener)])[cookie(listener)]

    def refuse(*_: object) -> Iterator[bytes]:
        raise OSError(number, os.strerror(number))
        yield b""

    monkeypatch.setattr(netlink, "ask", refuse)
    assert socket_diag.find([cookie(listener)]) == {}
    assert socket_diag.again(known) is None


def test_an_error_is_an_end() -> None:
    """A protocol that is none: the kernel answers with an error message."""
    answers = list(_first(netlink.ask(4, 20, netlink.DUMP, bytes([255]) + bytes(55))))
    assert netlink.matching(answers[0], 20, 60, "Q", {0}) == ([], False)


def _first(answers: Iterator[bytes]) -> Iterator[bytes]:
    yield next(answers)


def test_a_search_has_an_end(made: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_diag, "_LONGEST", -1.0)
    assert socket_diag.find([1 << 60]) == {}


def test_many_sockets(made: Sockets) -> None:
    listener = made.listener()
    pairs = [made.connected(listener) for _ in range(2000)]
    wanted = [cookie(one) for pair in pairs for one in pair]
    found = dict[int, socket_diag.Socket]()
    numbers = [len(found) for _ in socket_diag.search(wanted, found)]
    assert set(found) == set(wanted)
    # Others have their turns, and soon.
    assert len(numbers) > 10
    assert max(after - before for before, after in itertools.pairwise([0, *numbers])) < 500
