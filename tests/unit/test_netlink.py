"""Netlink messages: what is wanted is found among them, and what is broken does no harm."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from fusefs.bpf import netlink
from fusefs.bpf.socket_diag import internet_socket, unix_socket

KIND, OFFSET = 20, 24


def message(number: int, rest: int = 0, kind: int = KIND) -> bytes:
    """A message with a number at OFFSET, and so many bytes behind it."""
    body = bytes(OFFSET - netlink.HEADER) + struct.pack("=Q", number) + b"x" * rest
    length = netlink.HEADER + len(body)
    return (struct.pack("=IHHII", length, kind, 2, 0, 0) + body).ljust(length + 3 & ~3, b"\0")


DONE = struct.pack("=IHHIIi", 20, 3, 2, 0, 0, 0)
numbers = st.integers(0, 20)


@given(st.lists(st.tuples(numbers, st.integers(0, 30))), st.sets(numbers), st.booleans())
def test_what_is_wanted_is_found(
    made: list[tuple[int, int]], wanted: set[int], ended: bool
) -> None:
    messages = [message(number, rest) for number, rest in made]
    data = b"".join(messages) + (DONE if ended else b"")
    found, more = netlink.matching(data, KIND, OFFSET, "Q", wanted)
    expected = [
        one[: OFFSET + 8 + rest]
        for (number, rest), one in zip(made, messages, strict=True)
        if number in wanted
    ]
    assert found == expected
    assert more == (not ended)


@given(st.lists(numbers, min_size=1, max_size=300), numbers)
def test_messages_of_one_length(made: list[int], wanted: int) -> None:
    data = b"".join(message(number, 12) for number in made)
    found, more = netlink.matching(data, KIND, OFFSET, "Q", {wanted})
    assert (len(found), more) == (made.count(wanted), True)


@given(st.lists(numbers, min_size=1), st.data())
def test_what_is_cut_short_ends(made: list[int], data: st.DataObject) -> None:
    whole = b"".join(map(message, made))
    size = data.draw(st.integers(1, len(whole) - 1))
    found, more = netlink.matching(whole[:size], KIND, OFFSET, "Q", set(made))
    assert len(found) == size // len(message(0))
    assert more == (size % len(message(0)) == 0)


@given(st.lists(numbers), st.integers(0, 0xFFFF).filter(lambda kind: kind != KIND))
def test_another_kind_is_an_end(made: list[int], kind: int) -> None:
    data = b"".join(map(message, made)) + message(1, kind=kind) + message(1)
    found, more = netlink.matching(data, KIND, OFFSET, "Q", {1})
    assert (len(found), more) == (made.count(1), False)


@given(st.binary(max_size=200), st.sets(st.integers(0)))
def test_noise(data: bytes, wanted: set[int]) -> None:
    found, _ = netlink.matching(data, KIND, OFFSET, "Q", wanted)
    assert len(found) <= len(data) // netlink.HEADER
    assert sum(map(len, netlink.attributes(data).values())) <= len(data)


@given(st.binary(max_size=150), st.sampled_from(["tcp", "udp"]))
def test_noise_is_no_socket_or_a_whole_one(data: bytes, protocol: str) -> None:
    for family in (1, 2, 10):
        made = data[:16] + bytes([family]) + data[17:]
        for one in (internet_socket(made, protocol), unix_socket(made)):
            assert one is None or one.members()["state"]
            assert one is None or one.members().keys() <= {"protocol", "state", "local", "remote"}


@given(st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=9)))
def test_attributes(made: dict[int, bytes]) -> None:
    data = b"".join(
        (struct.pack("=HH", 4 + len(value), kind) + value).ljust(4 + len(value) + 3 & ~3, b"\0")
        for kind, value in made.items()
    )
    assert netlink.attributes(data) == made
