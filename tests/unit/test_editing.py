"""Writing a text, driven as tools drive it."""

from __future__ import annotations

import errno
import json
import os
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusefs.bpf.btf import Btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.credentials import Caller
from fusefs.text.compile import compile_codec
from fusefs.text.errors import Incomplete
from fusefs.text.value import check_begins, from_text, to_text
from fusefs.tree.editing import Editing
from fusefs.tree.node import Opening


class File:
    """What `Editing` needs of a file: one that keeps its value, and a record of what was taken."""

    longest = 1 << 20
    goes_on = True
    by_lines = False

    def __init__(self, kind: str, text: str) -> None:
        types = BtfBuilder()
        u32 = types.integer("__u32", 4)
        char = types.integer("char", 1, signed=True)
        kinds = {
            "number": u32,
            "list": types.array(u32, 3, u32),
            "text": types.array(char, 64, u32),
            "pair": types.struct("pair", 8, [("first", u32, 0), ("second", u32, 32)]),
        }
        self.codec = compile_codec(Btf.parse(types.build()), kinds[kind])
        self.value = from_text(self.codec, text, bytes(self.codec.size))
        self.parsed = 0
        self.taken: list[str] = []
        self.refused: list[str] = []
        self.closed_object = False

    @property
    def now(self) -> Any:
        """The value, as JSON has it."""
        return json.loads(self.render(self))

    def render(self, obj: object) -> bytes:
        return to_text(self.codec, self.value).encode()

    def check(self, obj: object, text: str) -> None:
        check_begins(self.codec, text, self.value)

    def accept(self, obj: object, text: str, opening: Opening) -> None:
        self.parsed += len(text)
        self.value = from_text(self.codec, text, self.value)
        self.taken.append(text)

    def refuse(self, obj: object, what: str, error: Exception, text: str = "") -> OSError:
        self.refused.append(f"{what}: {error}")
        return OSError(errno.EINVAL, str(error))

    def emptied(self, obj: object) -> None:
        """It keeps its value."""

    def close(self) -> None:
        self.closed_object = True


class Lines(File):
    """One that takes numbers, one a line, or a list of numbers on many."""

    by_lines = True

    def accept(self, obj: object, text: str, opening: Opening) -> None:
        if text.count("[") > text.count("]"):
            raise Incomplete("the list does not end")
        self.taken.append(text)


def opened(
    kind: str = "number", text: str = "101", flags: int = os.O_TRUNC
) -> tuple[File, Editing]:
    """A file, and what is open of it."""
    file = File(kind, text)
    opening = Opening(os.O_WRONLY | flags, Caller(0, 0))
    editing = Editing(cast(Any, file), cast(Any, file), file.render(file), opening)
    return file, editing


def test_echo() -> None:
    file, editing = opened()
    editing.flush()
    assert file.taken == []
    editing.write(0, b"7\n")
    assert file.taken == ["7\n"]
    editing.flush()
    editing.close()
    assert file.taken == ["7\n"]
    assert file.closed_object


def test_mcedit_writes_one_byte_and_then_the_rest() -> None:
    file, editing = opened()
    editing.write(0, b"2")
    assert file.taken == []
    editing.write(1, b"05\n")
    editing.flush()
    assert file.taken == ["205\n"]


def test_rsync_inplace_shortens_at_the_end() -> None:
    file, editing = opened(text="101", flags=0)
    editing.write(0, b"7\n")
    editing.truncate(2)
    editing.flush()
    assert file.taken == ["7\n"]


def test_rsync_inplace_writes_only_what_differs() -> None:
    file, editing = opened("list", "[1, 2, 3]", flags=0)
    editing.write(4, b"9, 3]\n")
    editing.truncate(10)
    editing.flush()
    assert file.now == [1, 9, 3]
    assert len(file.taken) == 1


def test_dd_skips_blocks() -> None:
    file, editing = opened("list", "[1, 2, 3]", flags=0)
    editing.write(0, b"[5, ")
    editing.write(7, b"7]\n")
    assert file.now == [5, 2, 7]


def test_a_hole_is_refused() -> None:
    file, editing = opened()
    with pytest.raises(OSError):
        editing.write(4, b"7\n")
    assert file.taken == []
    editing.write(0, b"7\n")
    assert file.now == 7


def test_append() -> None:
    file, editing = opened(flags=os.O_APPEND)
    editing.write(4, b"8\n")
    editing.write(6, b"9")
    editing.write(7, b"0\n")
    editing.flush()
    assert file.taken == ["8\n", "90\n"]


def test_flush_without_data_changes_nothing() -> None:
    file, editing = opened()
    for _ in range(3):
        editing.flush()
    editing.truncate(0)
    editing.flush()
    assert file.taken == []


def test_without_a_newline_the_flush_commits() -> None:
    file, editing = opened()
    editing.write(0, b"7")
    assert file.taken == []
    editing.flush()
    editing.flush()
    assert file.taken == ["7"]


def test_what_comes_after_a_flush_goes_on_with_the_value() -> None:
    """`(printf 7; printf $(echo 8)) > f`: the fork for the substitution closes a copy."""
    file, editing = opened()
    editing.write(0, b"7")
    editing.flush()
    editing.write(1, b"8\n")
    editing.flush()
    assert file.taken == ["7", "78\n"]


def test_an_object_goes_on_after_a_flush() -> None:
    file, editing = opened("pair", "{}")
    editing.write(0, b'{"first": ')
    for text, at in ((b"80", 10), (b"}", 12)):
        with pytest.raises(OSError):
            editing.flush()
        editing.write(at, text)
    editing.flush()
    assert file.now == {"first": 80, "second": 0}


def test_a_write_in_the_middle_keeps_the_rest() -> None:
    file, editing = opened(text="12345", flags=0)
    editing.write(2, b"9")
    editing.flush()
    assert file.now == 12945


def test_a_program_reads_the_value_and_writes_another() -> None:
    """`exec 5<>f; cat <&5; echo 7 >&5`: the offset is where the reading ended."""
    file, editing = opened(text="12345", flags=0)
    assert editing.read(0, 100) == b"12345\n"
    editing.write(6, b"7\n")
    assert file.now == 7


def test_a_program_goes_back_in_what_it_wrote() -> None:
    file, editing = opened()
    editing.write(0, b"123")
    editing.write(1, b"9")
    editing.flush()
    assert file.now == 193


@pytest.mark.parametrize(
    ("text", "piece"), [("12,000\n", 1), ("1garbage", 1), ("9" * 25 + "\n", 10), ("7 apples", 1)]
)
def test_the_beginning_of_a_refused_text_is_not_committed(text: str, piece: int) -> None:
    file, editing = opened(text="500")
    with pytest.raises(OSError):
        for at in range(0, len(text), piece):
            editing.write(at, text[at : at + piece].encode())
    with pytest.raises(OSError):  # a program that takes no notice
        editing.write(len(text), b"0\n")
    editing.flush()
    assert file.now == 500
    editing.write(0, b"7\n")
    assert file.now == 7


def test_a_long_text_is_not_parsed_at_every_line() -> None:
    file, editing = opened("list", "[1, 2, 3]")
    lines = [b"[\n", *[b"1,\n" * 4096] * 100]
    at = 0
    for line in lines[:80]:
        editing.write(at, line)
        at += len(line)
    assert file.parsed < 8 * at


def test_values_one_after_the_other() -> None:
    file, editing = opened()
    for number, at in ((5, 0), (6, 2), (7, 4)):
        editing.write(at, b"%d\n" % number)
        assert file.now == number
    editing.write(0, b"9\n")
    assert file.now == 9


def lines(*pieces: bytes) -> tuple[Lines, Editing]:
    """What takes lines, once it was given these pieces of a text."""
    file = Lines("number", "0")
    opening = Opening(os.O_WRONLY, Caller(0, 0))
    editing = Editing(cast(Any, file), cast(Any, file), b"", opening)
    at = 0
    for piece in pieces:
        end = at + len(piece)
        while at < end:
            at += editing.write(at, piece[at - end :])
    return file, editing


def test_what_is_appended_goes_on_wherever_the_kernel_takes_the_end_to_be() -> None:
    """A stat in between tells it that the file is empty, and the next write is at 0."""
    file = Lines("number", "0")
    opening = Opening(os.O_WRONLY | os.O_APPEND, Caller(0, 0))
    editing = Editing(cast(Any, file), cast(Any, file), b"", opening)
    for at, piece in ((0, b"1"), (0, b"2\n"), (3, b"3"), (0, b"4"), (5, b"5\n")):
        assert editing.write(at, piece) == len(piece)
    assert file.taken == ["12\n", "345\n"]


def test_lines_that_were_taken_cannot_be_cut_off() -> None:
    file, editing = lines(b"12\n34\n")
    editing.truncate(4)
    editing.flush()
    assert file.taken == ["12\n34\n"]
    file, editing = lines(b"1\n2\n345")
    editing.truncate(5)
    editing.flush()
    assert file.taken == ["1\n2\n", "3"]
    file, editing = lines(b"1\n2\n3")
    editing.truncate(4)
    editing.write(4, b"5\n")
    assert file.taken == ["1\n2\n", "5\n"]


def test_blank_lines_do_not_pile_up() -> None:
    file, editing = opened()
    editing.write(0, b"5\n")
    with pytest.raises(OSError, match="longer than"):
        for number in range(100):
            editing.write(2 + number * 65536, b"\n" * 65536)
    assert file.now == 5


def test_a_write_takes_no_more_lines_than_others_can_wait_for() -> None:
    text = b"12\n" * 100_000
    _, editing = lines()
    taken = editing.write(0, text)
    assert 1000 < taken < 100_000
    assert text[:taken].endswith(b"\n")
    file, editing = lines(text, b"x" * 100_000, b"\n1\n")
    assert "".join(file.taken).encode() == text + b"x" * 100_000 + b"\n1\n"
    assert max(map(len, file.taken[:-1])) < 100_000


def test_lines_are_taken_as_they_come() -> None:
    file, editing = lines(b"1\n2\n3", b"4\n", b"5", b"6", b"7\n8")
    assert file.taken == ["1\n2\n", "34\n", "567\n"]
    editing.flush()
    assert file.taken[-1] == "8"


def test_a_list_of_many_lines_is_taken_whole() -> None:
    file, _ = lines(b"[1,\n 2", b",\n3", b"]\n4")
    assert file.taken == ["[1,\n 2,\n3]\n"]


@given(st.lists(st.integers(0, 300), min_size=1), st.data())
def test_however_lines_are_cut_they_are_the_same(numbers: list[int], data: st.DataObject) -> None:
    text = b"".join(b"%d\n" % number for number in numbers)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text)))) | {0, len(text)})
    file, editing = lines(*(text[start:end] for start, end in pairwise(cuts)))
    assert "".join(file.taken).encode() == text
    editing.flush()
    assert "".join(file.taken).encode() == text


def test_blank_lines_after_a_value() -> None:
    file, editing = opened()
    editing.write(0, b"5\n")
    editing.write(2, b"\n")
    editing.write(3, b"  \n")
    editing.flush()
    assert file.taken == ["5\n"]


def test_a_second_value_after_blank_lines() -> None:
    file, editing = opened()
    editing.write(0, b"5\n")
    editing.write(2, b"\n")
    editing.write(3, b"6\n")
    assert file.now == 6


@pytest.mark.parametrize("text", [b"\n", b"x\n", b"x", b"1 2\n", b"\xff\n", b"4294967296\n"])
def test_what_is_wrong_fails_at_the_write(text: bytes) -> None:
    file, editing = opened()
    with pytest.raises(OSError) as caught:
        editing.write(0, text)
    assert caught.value.errno == errno.EINVAL
    editing.flush()  # it has not happened
    assert file.taken == []
    assert len(file.refused) == 1
    editing.write(0, b"7\n")
    assert file.taken == ["7\n"]


def test_a_lone_line_that_lacks_its_end_is_refused_at_once() -> None:
    file, editing = opened("pair", "{}")
    with pytest.raises(OSError):
        editing.write(0, b'{"first": 1\n')
    editing.flush()
    assert file.taken == []


def test_an_unfinished_text_is_refused_at_the_flush() -> None:
    file, editing = opened("pair", "{}")
    editing.write(0, b'{"first": 1')
    for _ in range(2):
        with pytest.raises(OSError):
            editing.flush()
    assert len(file.refused) == 1  # the log has it once
    assert file.now == {"first": 0, "second": 0}


def test_a_text_line_by_line() -> None:
    file, editing = opened("pair", "{}")
    at = 0
    for line in (b"{\n", b'  "first": 1,\n', b'  "second": 2\n', b"}\n"):
        assert file.taken == []
        editing.write(at, line)
        at += len(line)
    assert file.now == {"first": 1, "second": 2}
    assert len(file.taken) == 1


def test_a_text_that_is_cut_before_it_is_committed() -> None:
    file, editing = opened()
    editing.write(0, b"123")
    editing.truncate(2)
    editing.flush()
    assert file.now == 12


def test_a_character_that_is_cut_off_is_not_dropped() -> None:
    file, editing = opened("text", '"old"')
    editing.write(0, "grün".encode()[:3])
    with pytest.raises(OSError):
        editing.flush()
    assert file.now == "old"


def test_a_character_in_two_writes() -> None:
    file, editing = opened("text", '"old"')
    text = "grün\n".encode()
    editing.write(0, text[:3])
    editing.write(3, text[3:])
    assert file.now == "grün"


def test_reading_while_writing() -> None:
    file, editing = opened(flags=0)
    assert editing.read(0, 100) == b"101\n"
    editing.write(0, b"7\n")
    assert editing.read(2, 100) == b"1\n"  # the same text to its end
    assert editing.read(0, 100) == b"7\n"
    assert file.now == 7


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": st.integers(0, 2**32 - 1),
    "list": st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=15),
    "pair": st.fixed_dictionaries(
        {"first": st.integers(0, 9), "second": st.integers(0, 2**32 - 1)}
    ),
}


@st.composite
def written(draw: st.DrawFn) -> tuple[str, Any, list[bytes]]:
    """A type, a value, and its text cut into writes."""
    kind = draw(st.sampled_from(sorted(VALUES)))
    value = draw(VALUES[kind])
    indent = draw(st.sampled_from([None, 0, 2]))
    ensure = draw(st.booleans())
    end = draw(st.sampled_from(["\n", ""]))
    text = (json.dumps(value, indent=indent, ensure_ascii=ensure) + end).encode()
    cuts = sorted(draw(st.sets(st.integers(1, len(text)))) | {0, len(text)})
    return kind, value, [text[a:b] for a, b in pairwise(cuts)]


@given(written(), st.sampled_from([0, os.O_TRUNC, os.O_APPEND]))
@example(("text", "ü", [b'"', b"\xc3", b"\xbc", b'"', b"\n"]), os.O_TRUNC)
def test_however_a_text_is_cut_it_is_the_same_value(
    case: tuple[str, Any, list[bytes]], flags: int
) -> None:
    kind, value, writes = case
    start = {"number": "1", "list": "[1,2,3]", "text": '"old"', "pair": "{}"}[kind]
    file, editing = opened(kind, start, flags)
    at = len(file.render(file)) if flags & os.O_APPEND else 0
    for data in writes:
        editing.write(at, data)
        at += len(data)
    editing.flush()
    editing.flush()
    assert file.now == value
    assert file.refused == []
    assert "".join(file.taken).encode().rstrip() == b"".join(writes).rstrip()
