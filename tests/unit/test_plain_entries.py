"""The place in memory where an entry's node id lies is found, or is left alone."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from fusefs import plain_entries
from fusefs.plain_entries import find_offsets, plain_entry


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """What was found is looked for again."""
    find_offsets.cache_clear()
    yield
    find_offsets.cache_clear()


def test_an_entry_has_a_number_and_a_type_and_no_node_id() -> None:
    plain = plain_entry()
    assert plain
    for number in (5, (1 << 53) + 1):
        entry = plain.fill(number, stat.S_IFLNK)
        assert entry.st_ino == 0  # pyfuse3 gives the node id
        assert entry.st_mode == stat.S_IFLNK
        offset = find_offsets()
        assert offset


@pytest.mark.parametrize("found", [[], [16], [16, 40, 80], [40, 16]], ids=str)
def test_there_are_none_where_it_is_not_certain(
    found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_entries, "_places", lambda marker: found)
    assert plain_entry() is None
