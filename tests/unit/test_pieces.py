"""Streams that are read: whatever their pieces are, a read is filled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.tree.stream_files import Pieces


def read(stream: Pieces, offset: int, size: int) -> bytes:
    """Read as the mount does: it asks again after others had a turn."""
    while (data := stream.read(offset, size)) is None:
        pass
    return data


@given(
    st.lists(st.binary(max_size=20), max_size=10),
    st.lists(st.tuples(st.integers(0, 120), st.integers(1, 50))),
)
def test_reads_at_any_place(pieces: list[bytes], reads: list[tuple[int, int]]) -> None:
    whole = b"".join(pieces)
    stream = Pieces(lambda: iter(pieces))
    for offset, size in reads:
        assert read(stream, offset, size) == whole[offset : offset + size]


@given(st.lists(st.binary(max_size=20), max_size=10), st.integers(1, 50))
def test_from_start_to_end(pieces: list[bytes], size: int) -> None:
    whole = b"".join(pieces)
    made = 0

    def make() -> Iterator[bytes]:
        nonlocal made
        made += 1
        yield from pieces

    stream = Pieces(make)
    given = [read(stream, offset, size) for offset in range(0, len(whole) + size, size)]
    assert b"".join(given) == whole
    assert made == 1


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def make() -> Iterator[bytes]:
        yield b"before"
        raise OSError(5, "no more")

    stream = Pieces(make)
    assert read(stream, 0, 100) == b"before"
    for _ in range(2):
        with pytest.raises(OSError, match="no more"):
            read(stream, 6, 100)
    assert read(stream, 0, 100) == b"before"


def test_who_waits_for_long_gets_what_there_is() -> None:
    stream = Pieces(lambda: iter([b"first", b"", b"second"]))
    assert stream.filler(0, 100) == b""
    assert stream.read(0, 100) is None
    assert stream.filler(0, 100) == b"first"
    assert read(stream, 5, 100) == b"second"
    assert read(stream, 11, 100) == b""


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 9), st.integers(1, 9))
def test_reads_that_share_it_come_one_after_the_other(
    first: int, second: int, size: int, other: int
) -> None:
    """However often they ask in turns, each gets its own, and gets it in the end."""
    pieces = [bytes([65 + number] * 4) if number % 2 else b"" for number in range(20)]
    whole = b"".join(pieces)
    stream = Pieces(lambda: iter(pieces))
    waiting = [(first, size), (second, other)]
    for _ in range(3 * len(pieces)):
        for place in list(waiting):
            offset, length = place
            text = stream.read(offset, length)
            if text is None:
                text = stream.filler(offset, length) or None
            if text is not None:
                assert whole[offset : offset + length].startswith(text)
                waiting.remove(place)
    assert not waiting
