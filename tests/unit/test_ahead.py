"""Reading ahead: items that a thread makes while others are used."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fusefs.bpf.ahead import ahead


def test_all_come_in_order() -> None:
    assert [*ahead(iter(range(100)))] == [*range(100)]
    assert [*ahead(iter(()))] == []


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError(5, "no more")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(OSError, match="no more"):
        next(coming)


def test_nobody_waits_for_what_another_reads() -> None:
    may_go_on = threading.Event()

    def held_up() -> Iterator[int]:
        yield 1
        assert may_go_on.wait(10)
        yield 2

    one, other = ahead(held_up()), ahead(iter(range(100)))
    assert next(one) == 1
    assert [*other] == [*range(100)]
    may_go_on.set()
    assert [*one] == [2]


def test_nothing_is_made_once_it_is_closed() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    coming = ahead(items())
    assert next(coming) == 0
    coming.close()
    before = [*made]
    assert len(before) < 100
    assert [*ahead(iter(range(10)))] == [*range(10)]  # the thread is free, and has done all it had
    assert made == before
