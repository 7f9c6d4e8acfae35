"""The grammar of values."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusefs.text.errors import Incomplete, Refused
from fusefs.text.jsontext import Json, to_json
from fusefs.text.parse import Mapping, Node, Scalar, Sequence, parse


def plain(node: Node) -> object:
    """A node without its positions; bare tokens as 1-tuples."""
    match node:
        case Scalar(_, text, quoted):
            return text if quoted else (text,)
        case Sequence(_, items):
            return [plain(item) for item in items]
        case Mapping(_, members):
            return {name: plain(value) for name, _at, value in members}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", ("42",)),
        (" -1\n", ("-1",)),
        ("hello, world: [1] {\n\n", ("hello, world: [1] {",)),
        ('"a b"', "a b"),
        (r'"\"\\\/\b\f\n\r\t\u00e9"', '"\\/\b\f\n\r\té'),
        (r'"\ud83d\ude00"', "\N{GRINNING FACE}"),
        ("[]", []),
        (" [ 1 ,\n2 ] ", [("1",), ("2",)]),
        ("[fe80::1,10.0.0.1]", [("fe80::1",), ("10.0.0.1",)]),
        ("{}", {}),
        ("{saddr: 10.0.0.1, dport:443}", {"saddr": ("10.0.0.1",), "dport": ("443",)}),
        ('{"a":{"b":[true,null]}}', {"a": {"b": [("true",), ("null",)]}}),
        ('{a:"x"}', {"a": "x"}),
    ],
)
def test_grammar(text: str, expected: object) -> None:
    assert plain(parse(text)) == expected


def test_positions() -> None:
    node = parse(' {a: 1, "b": [2, x]}')
    assert node == Mapping(
        1,
        (
            ("a", 2, Scalar(5, "1", quoted=False)),
            (
                "b",
                8,
                Sequence(13, (Scalar(14, "2", quoted=False), Scalar(17, "x", quoted=False))),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("text", "reason", "at"),
    [
        ("1\n2", "a second line follows the value", 2),
        ("[1] 2", "'2' follows the value", 4),
        ('"a""b"', "'\"b\"' follows the value", 3),
        ("[1 2]", "'2' within an array, where ',' or ']' belongs", 3),
        ("[1,]", "unexpected ']'", 3),
        ("{,}", "unexpected ','", 1),
        ("{a 1}", "no ':' after the name 'a'", 3),
        ("{a: 1, a: 2}", "'a' is given twice", 7),
        ('{a: 1, "\\u0061": 2}', "'a' is given twice", 7),
        ('"\\x"', "'\\\\x' is no escape", 1),
        ('"ab\\uzz', "'\\\\u' is no escape", 3),
        ('"\\ud83d"', "a string holds half of a surrogate pair", 0),
        ('"\\ude00\\ud83d"', "a string holds half of a surrogate pair", 0),
        ('"a\nb"', "a string holds a control character that is not escaped", 2),
        ("[\x01]", "unexpected '\\x01'", 1),
        ("\udcff", "the text is not UTF-8", 0),
        ("[" * 65 + "]" * 65, "nested more than 64 deep", 64),
        ("[" * 1_000_000, "nested more than 64 deep", 64),
        ('{"a":' * 1_000_000, "nested more than 64 deep", 320),
    ],
)
def test_malformed(text: str, reason: str, at: int) -> None:
    with pytest.raises(Refused) as caught:
        parse(text)
    assert (caught.value.reason, caught.value.at) == (reason, at)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "text", ["", " \n", "[", "[1", "[1,", "{", '{"a', "{a", "{a:", "{a:1", '"', '"a\\', '"\\u00']
)
def test_incomplete(text: str) -> None:
    with pytest.raises(Incomplete):
        parse(text)


def test_64_deep_is_fine() -> None:
    parse("[" * 64 + "]" * 64)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def as_json(node: Node) -> object:
    match node:
        case Scalar(_, text, quoted):
            return text if quoted else json.loads(text)
        case Sequence(_, items):
            return [as_json(item) for item in items]
        case Mapping(_, members):
            return {name: as_json(value) for name, _at, value in members}


@given(st.one_of(json_values, st.text().map(lambda text: [text])), st.booleans())
def test_all_json_is_read(value: Json, ascii_only: bool) -> None:
    assert as_json(parse(json.dumps(value, ensure_ascii=ascii_only))) == value
    assert as_json(parse(to_json(value))) == value


@given(st.text(alphabet=st.sampled_from('{}[]:,"\\u0ad8 \n\x00'), max_size=30))
@example('"\\ud83d\\ude00')
def test_any_text_has_one_fate(text: str) -> None:
    """A prefix of what is read is incomplete or read itself, and never refused."""
    try:
        parse(text)
    except (Refused, Incomplete):
        return
    for end in range(len(text)):
        with contextlib.suppress(Incomplete):
            parse(text[:end])


@pytest.mark.parametrize(
    "text",
    [
        "\x00\xff" * 500_000,
        '"' + "\\\\" * 500_000,
        '"' + "\\u0041" * 150_000 + '"',
        '"' + "a" * 1_000_000,
        " " * 1_000_000,
        "[" + " " * 1_000_000,
        "a" * 1_000_000 + "\n" * 100_000,
        "[" + "1" * 1_000_000,
        "[" + "1," * 100_000 + "1]",
    ],
    ids=range(9),
)
def test_large_texts_take_linear_time(text: str) -> None:
    start = time.monotonic()
    with contextlib.suppress(Refused, Incomplete):
        parse(text)
    assert time.monotonic() - start < 2


def test_control_characters_are_escaped() -> None:
    text = to_json("\x1b[31m\x7f\x9b\u2028\u202e\u2066é\N{GRINNING FACE}")
    assert text == '"\\u001b[31m\\u007f\\u009b\\u2028\\u202e\\u2066é\N{GRINNING FACE}"'
    assert Refused("a\nb").reason == "a\\u000ab"
