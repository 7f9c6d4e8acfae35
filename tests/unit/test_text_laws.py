"""The laws that every codec keeps, over generated types and bytes."""

from __future__ import annotations

import contextlib
import json
from random import Random
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.btf_strategies import Compiled, Sample, compiled, contents, samples

from fusefs.bpf.btf import BtfError, kernel_btf
from fusefs.text.arrays import PerCpu
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec, raw_codec
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.names import LONGEST, digest_of, from_name, key_digest, looks_scratch, to_name
from fusefs.text.value import check_begins, from_text, to_text


def strict(text: str) -> object:
    """What a strict JSON reader makes of `text`."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant)

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


@given(samples())
def test_writing_what_was_read_changes_nothing(sample: Sample) -> None:
    text = to_text(sample.codec, sample.data)
    assert from_text(sample.codec, text, sample.data) == sample.data


@given(samples())
def test_what_was_read_can_be_written_to_a_new_entry(sample: Sample) -> None:
    codec = sample.codec
    written = from_text(codec, to_text(codec, sample.data), bytes(codec.size))
    assert codec.decode(written) == codec.decode(sample.data)
    if sample.complete:
        assert written == sample.data


@given(samples(), st.data())
def test_padding_and_hidden_fields_stay_as_they_are(sample: Sample, data: st.DataObject) -> None:
    codec = sample.codec
    old = data.draw(contents(codec.size))
    written = from_text(codec, to_text(codec, sample.data), old)
    assert codec.decode(written) == codec.decode(sample.data)
    # Written back over what is there now, the old value's text restores it, hidden bytes and all.
    assert from_text(codec, to_text(codec, old), written) == old


@given(samples())
def test_text_is_one_line_of_strict_json(sample: Sample) -> None:
    text = to_text(sample.codec, sample.data)
    assert text.endswith("\n")
    line = text[:-1]
    assert line.isprintable() or not any(ord(char) < 0x20 or char == "\x7f" for char in line)
    assert strict(line) == sample.codec.decode(sample.data)


@given(samples())
def test_no_text_on_its_way_to_a_value_is_refused(sample: Sample) -> None:
    text = to_text(sample.codec, sample.data).rstrip("\n")
    for end in range(len(text)):
        check_begins(sample.codec, text[:end])


@given(samples(depth=2))
def test_a_bare_scalar_is_no_different_from_a_quoted_one(sample: Sample) -> None:
    value = sample.codec.decode(sample.data)
    if isinstance(value, str) and value and value == value.strip() and value[0] not in '{["':
        if "\n" in value:
            return
        for end in range(len(value)):
            check_begins(sample.codec, value[:end])
        assert from_text(sample.codec, value, sample.data) == sample.data


def check_name(codec: Codec, key: bytes) -> str:
    name = to_name(codec, key)
    assert len(name.encode()) <= LONGEST
    if digest := digest_of(name):
        assert digest == key_digest(key)
    else:
        assert from_name(codec, name) == key
    assert name not in ("", ".", "..")
    assert not looks_scratch(name)
    assert not any(char in "/\0\x7f" or ord(char) < 0x20 for char in name)
    name.encode()
    return name


@given(samples())
def test_a_name_finds_its_key(sample: Sample) -> None:
    check_name(sample.codec, sample.data)


@given(compiled(), st.data())
def test_names_of_different_keys_differ(made: Compiled, data: st.DataObject) -> None:
    codec = made.codec
    one, other = data.draw(contents(codec.size)), data.draw(contents(codec.size))
    assert (check_name(codec, one) == check_name(codec, other)) == (one == other)


@given(st.integers(0, 20), st.data())
def test_bytes_without_a_type_keep_the_laws(size: int, data: st.DataObject) -> None:
    codec, value = raw_codec(size), data.draw(contents(size))
    assert from_text(codec, to_text(codec, value), bytes(size)) == value
    check_name(codec, value)


@given(samples(depth=2), st.integers(1, 5), st.data())
def test_per_cpu_values_keep_the_laws(sample: Sample, ncpus: int, data: st.DataObject) -> None:
    codec = PerCpu(sample.codec, ncpus)
    parts = [data.draw(contents(sample.codec.size)) for _ in range(ncpus)]
    value = b"".join(part.ljust(codec.stride, b"\0") for part in parts)
    text = to_text(codec, value)
    assert strict(text) == [sample.codec.decode(part) for part in parts]
    assert from_text(codec, text, value) == value


KERNEL = kernel_btf()


@pytest.mark.skipif(KERNEL is None, reason="this kernel has no BTF")
def test_the_kernels_own_types_keep_the_laws() -> None:
    assert KERNEL is not None
    random = Random(1)
    for type_id in range(1, len(KERNEL), len(KERNEL) // 500):
        try:
            codec = compile_codec(KERNEL, type_id)
        except BtfError as error:
            assert "has no values" in str(error)
            continue
        if codec.size < 1000:
            data = random.randbytes(codec.size)
            assert from_text(codec, to_text(codec, data), data) == data
            check_name(codec, data)
            check_name(codec, bytes(codec.size))


PIECES = ["{", "}", "[", "]", ",", ":", '"', "\\", "\\u12", " ", "\n", "0", "-", "1e9", "true", "é"]


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """`text` with some pieces cut out, doubled, or put in."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 5)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.text(max_size=3), st.just("")))
        text = text[:start] + piece + text[end:]
    return text


@given(samples(), st.data())
def test_any_text_is_a_value_or_refused(sample: Sample, data: st.DataObject) -> None:
    codec = sample.codec
    text = data.draw(mutated(to_text(codec, sample.data)))
    try:
        written = from_text(codec, text, sample.data)
    except Incomplete:
        check_begins(codec, text)
    except Refused as refused:
        assert refused.reason
        assert "\n" not in refused.reason
        assert 0 <= refused.at <= len(text)
    else:
        assert from_text(codec, to_text(codec, written), written) == written
        # A text that is a value now was never hopeless before.
        for end in range(len(text)):
            check_begins(codec, text[:end])


@given(samples(), st.data())
def test_any_name_is_a_key_or_refused(sample: Sample, data: st.DataObject) -> None:
    name = data.draw(mutated(to_name(sample.codec, sample.data)))
    with contextlib.suppress(Refused):
        check_name(sample.codec, from_name(sample.codec, name))
