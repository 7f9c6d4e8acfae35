"""Listings of programs: functions, labels, source lines, and programs that are none."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from test_text_ebpf import Everything, programs

from fusefs.text.ebpf import Names, decode
from fusefs.text.listing import Line, listing

LINE = re.compile(r" *(\d+): (.*)\n")


def code(*words: tuple[int, int, int, int]) -> bytes:
    """Instructions, each of its code, destination register, offset and constant."""
    return b"".join(struct.pack("=BBhi", *word) for word in words)


def move(imm: int = 0) -> tuple[int, int, int, int]:
    return 0xB7, 0, 0, imm


def goto(step: int) -> tuple[int, int, int, int]:
    return 0x05, 0, step, 0


LOAD = ((0x18, 1, 0, 5), (0, 0, 0, 0))
EXIT = (0x95, 0, 0, 0)
CALL = (0x85, 0, 0, 6)


def listed(
    data: bytes,
    functions: Mapping[int, str] | None = None,
    lines: Mapping[int, Line] | None = None,
    names: Names | None = None,
) -> str:
    return "".join(listing(data, names or Names(), functions or {}, lines or {}))


def test_a_program() -> None:
    data = code(
        move(1), *LOAD, (0x15, 0, 2, 7), move(2), goto(-5), (0x85, 0, 0, 6), EXIT, move(), EXIT
    )
    functions = {0: "main", 8: "second"}
    lines = {
        0: Line("a.c", 10, "\tint i = 1;"),
        1: Line("a.c", 11, "void *data = &flows;"),
        6: Line("b.h", 3, " } "),
        7: Line("b.h", 3, ""),
        8: Line("a.c", 30, "return 0;"),
    }
    assert listed(data, functions, lines, Everything()) == (
        "main:\n"
        "; a.c\n"
        "; 10: int i = 1;\n"
        "   0: r0 = 1\n"
        "L1:\n"
        "; 11: void *data = &flows;\n"
        "   1: r1 = jiffies ll  # 0x5\n"
        "   3: if r0 == 7 goto L6\n"
        "   4: r0 = 2\n"
        "   5: goto L1\n"
        "L6:\n"
        "; b.h\n"
        "; 3: }\n"
        "   6: call helper_6\n"
        "; 3\n"
        "   7: exit\n"
        "\n"
        "second:\n"
        "; a.c\n"
        "; 30: return 0;\n"
        "   8: r0 = 0\n"
        "   9: exit\n"
    )


def test_jumps_that_lead_to_no_instruction() -> None:
    data = code(goto(1), *LOAD, goto(-2), goto(-100), goto(100), goto(0), goto(-1), goto(0))
    assert [text for _, text in instructions(listed(data))] == [
        "goto +1",  # into the middle of the load
        "r1 = 5 ll",
        "goto -2",
        "goto -100",
        "goto +100",
        "goto L7",
        "goto L7",
        "goto +0",  # to the end of the program
    ]
    assert labels(listed(data)) == {7}


def instructions(text: str) -> list[tuple[int, str]]:
    return [
        (int(found[1]), found[2])
        for line in text.splitlines(keepends=True)
        if (found := LINE.fullmatch(line))
    ]


def labels(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"^L(\d+):$", text, re.MULTILINE)}


def test_nothing() -> None:
    assert listed(b"") == ""
    assert listed(b"", {0: "main"}, {0: Line("a.c", 1, "text")}) == ""


def test_bytes_that_are_too_few_for_an_instruction() -> None:
    assert listed(code(EXIT) + b"\1\xff") == "   0: exit\n   1: .byte 1, 255\n"
    assert listed(b"\0") == "   0: .byte 0\n"


def test_a_load_without_its_second_half() -> None:
    first, second = listed(code(EXIT, LOAD[0])).splitlines()
    assert first == "   0: exit"
    assert second.startswith("   1: .8byte 0x")


def test_numbers_are_as_wide_as_the_largest() -> None:
    assert listed(code(*[move()] * 10_000)).startswith("   0: ")
    assert listed(code(*[move()] * 10_001)).startswith("    0: ")


def test_files_that_are_not_known() -> None:
    lines = {
        0: Line("", 1, "a"),
        1: Line("x.c", 2, "b"),
        2: Line("", 3, "c"),
        3: Line("x.c", 4, ""),
    }
    text = listed(code(*[move()] * 4), {}, lines)
    assert [line for line in text.splitlines() if line.startswith(";")] == [
        "; 1: a", "; x.c", "; 2: b", "; 3: c", "; x.c", "; 4",
    ]  # fmt: skip


@given(st.text(), st.text(), st.text())
def test_texts_are_on_one_line_each(file: str, text: str, name: str) -> None:
    shown = listed(code(EXIT), {0: name}, {0: Line(file, 7, text)})
    lines = shown.splitlines()
    assert len(lines) == shown.count("\n") == (4 if file else 3)
    assert lines[-1] == "   0: exit"
    assert lines[-2].startswith("; 7")
    assert lines[0].endswith(":")


@given(
    programs,
    st.binary(max_size=7),
    st.dictionaries(st.integers(-2, 14), st.just("f")),
    st.sets(st.integers(-2, 14)),
)
def test_any_bytes_have_a_listing(
    data: bytes, more: bytes, functions: dict[int, str], sources: set[int]
) -> None:
    lines = {index: Line("a", index + 3, "b") for index in sources}
    text = listed(data + more, functions, lines)
    read = [*decode(data)]
    starts = [each.index for each in read] + ([len(data) // 8] if more else [])
    shown = instructions(text)
    assert [index for index, _ in shown] == starts
    # Each label has an instruction that jumps to it, and the reverse.
    wanted = {int(number) for _, line in shown for number in re.findall(r"\bL(\d+)$", line)}
    assert labels(text) == wanted
    assert wanted == {
        target
        for each in read
        if each.step is not None and (target := each.index + 1 + each.step) in starts[: len(read)]
    }
    assert text.count("f:\n") == len(functions.keys() & {each.index for each in read})
    assert text.count(": b\n") == len(sources & {each.index for each in read})


def test_a_line_that_goes_on_is_shown_once() -> None:
    line, other = Line("x.c", 7, "a += b;"), Line("x.c", 8, "return a;")
    text = listed(code(*[move()] * 5), {}, {0: line, 1: line, 2: other, 3: line, 4: line})
    assert [shown for shown in text.splitlines() if shown.startswith(";")] == [
        "; x.c", "; 7: a += b;", "; 8: return a;", "; 7: a += b;",
    ]  # fmt: skip


def test_it_is_made_as_it_is_read() -> None:
    class Asked(Names):
        calls = 0

        def helper(self, number: int) -> None:
            self.calls += 1

    names = Asked()
    lines = filter(None, listing(code(*[CALL] * 1000), names, {}, {}))
    assert len([*itertools.islice(lines, 10)]) == 10
    assert names.calls == 10
