"""Records of a ring: of any length, with a format or without."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.btf_strategies import Sample, contents, samples

from fusefs.bpf.btf import Btf, Kind
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.codec import Codec
from fusefs.text.errors import Refused
from fusefs.text.formats import FORMATS, Unfit, with_format
from fusefs.text.records import Records, record_lines
from fusefs.text.value import check_begins, from_text


def types() -> Btf:
    """`struct event`, with an address that is a number."""
    made = BtfBuilder()
    u32, u16 = made.integer("__u32", 4), made.integer("__u16", 2)
    inner = made.struct("pair", 4, [("low", u16, 0), ("high", u16, 16)])
    members = [("address", u32, 0), ("ports", made.array(u16, 2, u32), 32), ("pair", inner, 64)]
    made.struct("event", 12, members)
    made.struct("nothing", 0, [])
    made.enum("mode", 4, [("OFF", 0), ("ON", 1)])
    return Btf.parse(made.build())


BTF = types()
EVENT = bytes([10, 0, 0, 1, 80, 0, 187, 1, 1, 0, 2, 0])
records = st.binary(max_size=40)
columns = st.lists(records, max_size=20)


def find(kind: Kind, name: str) -> tuple[Btf, int] | None:
    type_id = BTF.find(name, kind)
    return (BTF, type_id) if type_id else None


def formatted(*settings: str) -> Records:
    """The codec of records with `TARGET: FORMAT` settings."""
    codec: Codec = Records()
    for setting in settings:
        target, _, name = setting.partition(": ")
        codec = with_format(codec, target, name, find)
    assert isinstance(codec, Records)
    return codec


def shown(codec: Records, *column: bytes) -> list[object]:
    """What the lines of records say."""
    return [json.loads(line) for line in record_lines(codec, column)]


FORMS = ["value: auto", "value: struct event", "value: enum mode", "value: struct nothing"]
FORMS += [f"value: {name}" for name in FORMATS]
each_form = pytest.mark.parametrize("form", FORMS)


def test_bytes_are_hexadecimal_digits() -> None:
    assert shown(Records(), b"", b"a", b"\0\xff", b"ab") == ["", "61", "00ff", "6162"]
    assert record_lines(Records(), []) == []


def test_those_of_the_size_of_a_type_are_typed() -> None:
    event = {"address": 16777226, "ports": [80, 443], "pair": {"low": 1, "high": 2}}
    column = (b"", EVENT, EVENT[:-1], EVENT, EVENT + b"\0")
    assert shown(formatted("value: struct event"), *column) == [
        "", event, EVENT[:-1].hex(), event, EVENT.hex() + "00",
    ]  # fmt: skip
    codec = formatted(
        "value: struct event", "value.address: ipv4", "value.ports[]: be", "value.pair: hex"
    )
    assert shown(codec, EVENT) == [
        {"address": "10.0.0.1", "ports": [20480, 47873], "pair": "01000200"}
    ]
    assert shown(formatted("value: struct event", "value: hex"), EVENT) == [EVENT.hex()]


def test_formats_of_one_size_and_of_any() -> None:
    four, two = bytes([10, 0, 0, 1]), b"ab"
    assert shown(formatted("value: ipv4"), four, two) == ["10.0.0.1", "6162"]
    assert shown(formatted("value: uint"), four, two, b"") == [16777226, 25185, ""]
    assert shown(formatted("value: be"), four, two, bytes(17)) == [167772161, 24930, "00" * 17]
    assert shown(formatted("value: str"), b"a\0\0", two, b"") == ["a", "ab", ""]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["value: struct absent"], "has struct absent"),
        (["value.address: ipv4"], "records have parts once"),
        (["value: ipv4", "value.address: ipv4"], "has no field 'address'"),
        (["value: uint", "value[]: hex"], "records have parts once"),
        (["value: struct event", "value.absent: ipv4"], "struct event has no field 'absent'"),
        (["value: struct event", "value.ports: ipv6"], "it has 4 bytes"),
    ],
)
def test_formats_that_do_not_fit(settings: list[str], reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        formatted(*settings)


# The laws.


@each_form
@given(column=columns)
def test_each_record_has_its_line(form: str, column: list[bytes]) -> None:
    codec = formatted(form)
    lines = record_lines(codec, column)
    assert lines == [line for record in column for line in record_lines(codec, [record])]
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)


@each_form
@given(record=records, other=st.integers(0, 255))
def test_writing_what_was_read_changes_nothing(form: str, record: bytes, other: int) -> None:
    codec = formatted(form)
    text = record_lines(codec, [record])[0].decode()
    assert from_text(codec, text, record) == record
    assert from_text(codec, text, bytes([other]) * len(record)) == record


@pytest.mark.parametrize("form", ["value: auto", "value: struct event", "value: hex"])
@given(record=st.one_of(records, st.binary(min_size=12, max_size=12)))
def test_what_was_read_can_be_pushed(form: str, record: bytes) -> None:
    codec = formatted(form)
    text = record_lines(codec, [record])[0].decode()
    assert from_text(codec, text, b"") == record
    for end in range(len(text)):
        check_begins(codec, text[:end])
    if text.startswith('"') and record:
        for end in range(1, len(text) - 2):
            check_begins(codec, text[1:end])
        assert from_text(codec, text.replace('"', ""), b"") == record


@given(samples(), st.data())
def test_records_of_any_type(sample: Sample, data: st.DataObject) -> None:
    assume(sample.codec.size)
    codec = Records(sample.codec)
    other = data.draw(contents(sample.codec.size + 1))
    line, bare = record_lines(codec, [sample.data, other])
    assert json.loads(line) == sample.codec.decode(sample.data)
    assert json.loads(bare) == other.hex()
    assert from_text(codec, line.decode(), sample.data) == sample.data
    pushed = from_text(codec, line.decode(), b"")
    assert pushed == from_text(sample.codec, line.decode(), bytes(sample.codec.size))


@pytest.mark.parametrize(
    ("form", "text", "record"),
    [
        ("value: auto", "61 62", b"ab"),
        ("value: auto", "0A0b", b"\n\x0b"),
        ("value: auto", '""', b""),
        ("value: struct event", "{address: 7}", bytes([7]) + bytes(11)),
        ("value: struct event", "6162", b"ab"),
        ("value: enum mode", "ON", b"\1\0\0\0"),
        ("value: enum mode", '"abcd"', b"\xab\xcd"),
        ("value: ipv4", "10.0.0.1", bytes([10, 0, 0, 1])),
        ("value: uint", '"0a0b"', b"\n\x0b"),
        ("value: str", "hello", b"hello"),
        ("value: str", "grün", "grün".encode()),
        ("value: str", "[104, 105, 0]", b"hi\0"),
    ],
)
def test_texts_that_are_records(form: str, text: str, record: bytes) -> None:
    codec = formatted(form)
    check_begins(codec, text)
    assert from_text(codec, text + "\n", b"") == record


@pytest.mark.parametrize(
    ("form", "text", "reason"),
    [
        ("value: auto", "0", "expected hexadecimal digits, two for each byte, got '0'"),
        ("value: auto", "xy", "expected hexadecimal digits"),
        ("value: auto", "[1]", "got an array"),
        ("value: auto", "{}", "got an object"),
        ("value: uint", "258", "expected hexadecimal digits"),
        ("value: struct event", "{absent: 1}", "absent"),
        ("value: struct event", "0a0", "expected an object"),
        ("value: enum mode", "BOTH", "BOTH"),
        ("value: str", "{}", "an object"),
        ("value: str", "[1000]", "1000"),
    ],
)
def test_texts_that_are_none(form: str, text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        from_text(formatted(form), text, b"")


def test_a_text_that_cannot_become_a_record_is_refused_early() -> None:
    for text in ("x", "6g", "hello"):
        with pytest.raises(Refused):
            check_begins(Records(), text)
    check_begins(formatted("value: str"), "hello")
    check_begins(Records(), "61 6")


def test_codecs_of_many_lengths_are_not_kept() -> None:
    codec = formatted("value: str")
    for length in range(2000):
        assert codec.codec(length).size == length
    assert len(codec._codecs) <= 256  # type: ignore[attr-defined]
