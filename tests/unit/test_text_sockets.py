"""Sockets as text: a cookie, and whatever is known."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.text.errors import Refused
from fusefs.text.parse import parse
from fusefs.text.sockets import Socket
from fusefs.text.value import Lines, to_text

cookies = st.integers(0, (1 << 64) - 1)
members = st.dictionaries(st.sampled_from(["protocol", "state", "local", "remote"]), st.text())


@given(st.lists(cookies), st.dictionaries(cookies, members))
def test_each_is_an_object(column: list[int], known: dict[int, dict[str, str]]) -> None:
    for cookie in column[::2]:
        known.setdefault(cookie, {"protocol": "tcp"})
    codec = Socket(8, lambda asked: {cookie: known[cookie] for cookie in asked if cookie in known})
    shown = [str(text) for text in codec.shown(column)]
    assert [json.loads(text) for text in shown] == [
        {"cookie": cookie, **known.get(cookie, {})} for cookie in column
    ]
    assert all(text.isprintable() or "\n" not in text for text in shown)


def test_the_first_member_is_the_cookie() -> None:
    codec = Socket(8, lambda asked: {7: {"protocol": "tcp", "local": "[::1]:80"}})
    text = to_text(codec, struct.pack("=Q", 7))
    assert text == '{"cookie": 7, "protocol": "tcp", "local": "[::1]:80"}\n'


def test_one_question_for_a_column() -> None:
    asked: list[list[int]] = []

    def known(column: Sequence[int]) -> dict[int, dict[str, str]]:
        asked.append([*column])
        return {}

    codec = Socket(8, known)
    text = Lines(codec, codec).text(struct.pack("=2Q", 1, 2), struct.pack("=2Q", 3, 4))
    assert [json.loads(line) for line in text.splitlines()] == [
        {"key": {"cookie": 1}, "value": {"cookie": 3}},
        {"key": {"cookie": 2}, "value": {"cookie": 4}},
    ]
    assert asked == [[1, 2], [3, 4]]


@given(st.integers(0, 1 << 31))
def test_values_without_a_cookie(number: int) -> None:
    codec = Socket(4, lambda asked: pytest.fail("there is nothing to ask for"))
    assert to_text(codec, struct.pack("=I", number)) == "{}\n"


@given(st.sampled_from(["1", "{}", '{"cookie": 5}', "null"]))
def test_nothing_can_be_written(text: str) -> None:
    codec = Socket(8, lambda asked: {})
    with pytest.raises(Refused, match="put in by its owner"):
        codec.encode(parse(text), bytes(8))
