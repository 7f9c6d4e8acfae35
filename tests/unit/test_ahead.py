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


def test_to_close_it_does_not_wait_for_what_others_have_asked_for() -> None:
    may_go_on = threading.Event()
    went_on: list[bool] = []

    def held_up() -> Iterator[int]:
        yield 1
        went_on.append(may_go_on.wait(10))
        yield 2

    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    one, other = ahead(items()), ahead(held_up())
    assert next(one) == 0
    assert next(other) == 1
    assert next(one) == 1  # and one more is asked for, when `held_up` goes on
    one.close()
    assert not went_on
    before = [*made]
    may_go_on.set()
    assert next(other) == 2
    other.close()
    assert made == before
