"""Requests that the kernel repeats, and which are told apart from others."""

from __future__ import annotations

from fusefs.repeats import Repeats

THREAD, OTHER = 10, 11


def test_what_was_found_again_and_is_gone_again_was_repeated() -> None:
    repeats = Repeats()
    for _ in range(3):
        assert not repeats.gone(THREAD, 5)
        repeats.found(4)  # a directory on the way
        repeats.found(5)
        assert repeats.gone(THREAD, 5)


def test_what_was_not_found_again_or_is_another_was_not() -> None:
    for found, again in ((None, 5), (6, 6), (5, 6), (6, 5)):
        repeats = Repeats()
        assert not repeats.gone(THREAD, 5)
        if found:
            repeats.found(found)
        assert not repeats.gone(THREAD, again)


def test_what_was_met_before_another_was_opened_was_not() -> None:
    repeats = Repeats()
    assert not repeats.gone(THREAD, 5)
    repeats.found(5)
    repeats.opened(THREAD)
    assert not repeats.gone(THREAD, 5)


def test_each_thread_by_itself() -> None:
    repeats = Repeats()
    assert not repeats.gone(THREAD, 5)
    repeats.found(5)
    assert not repeats.gone(OTHER, 5)
    assert repeats.gone(THREAD, 5)
    assert not repeats.gone(OTHER, 5)
