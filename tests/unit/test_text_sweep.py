"""The laws of text over many thousands of values and texts: `--cases N` asks for more.

Each example of hypothesis is a type; its values and texts are drawn by its own random generator,
which is quicker by far. `test_text_laws` has the same laws for hypothesis to find small examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import ijson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import agrees, decode, read
from support.btf_strategies import Compiled, compiled

from fusefs.text.codec import Codec
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.names import digest_of, from_name, key_digest, looks_scratch, to_name
from fusefs.text.value import check_begins, from_text, to_text

VALUES = 10  # of each type
TEXTS = 50
PIECES = [
    "{", "}", "[", "]", ",", ":", '"', "\\", "\\u12", "\\ud800", " ", "\n", "\0", "0", "-", "1e9",
    "9" * 20, "0x", "nan", "NaN", "Infinity", "true", "null", "é", "\u202e", "\ud800", "_", "/",
    "%", "=", "a", ".",
]  # fmt: skip


def swept(cases: int, each: int) -> settings:
    """Settings for so many cases, of which each example has some."""
    return settings(
        max_examples=max(cases // each, 1),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def noise(random: Random, size: int) -> Iterator[bytes]:
    """Bytes as they are found in maps: of any kind, small numbers, text, nothing."""
    while True:
        yield random.randbytes(size)
        yield bytes(random.choice(b"\0\0\0\0\1\2\xff\x80") for _ in range(size))
        text = "".join(random.choice('ab/%=,{}"\\\n\x7f\u202eé.~#') for _ in range(size))
        yield text.encode()[: random.randrange(size + 1)].ljust(size, b"\0")
        yield bytes(size)


def strict(line: str) -> None:
    """Raise unless `line` is JSON to yajl, and no name comes twice in an object."""
    names: list[set[str]] = []
    for event, value in ijson.basic_parse(line.encode()):
        if event == "start_map":
            names.append(set())
        elif event == "end_map":
            names.pop()
        elif event == "map_key":
            assert value not in names[-1], f"{value} comes twice"
            names[-1].add(value)


def check_value(made: Compiled, data: bytes) -> None:
    """The laws of values."""
    codec = made.codec
    text = to_text(codec, data)
    assert from_text(codec, text, data) == data
    fresh = from_text(codec, text, bytes(codec.size))
    assert to_text(codec, fresh) == text
    assert fresh == data or not made.complete
    told = codec.mask.to_bytes(codec.size, "little")
    assert fresh == bytes(byte & mask for byte, mask in zip(data, told, strict=True))
    assert text[-1] == "\n"
    assert not any(char < " " or "\x7f" <= char < "\xa0" for char in text[:-1])
    strict(text[:-1])
    assert agrees(read(text), decode(made.btf, made.type_id, data))


def check_name(codec: Codec, key: bytes) -> str:
    """The laws of names."""
    name = to_name(codec, key)
    if digest := digest_of(name):
        assert digest == key_digest(key)
    else:
        assert from_name(codec, name) == key
    assert name not in ("", ".", "..")
    assert "/" not in name and "\0" not in name
    assert len(name.encode()) <= 255
    assert not looks_scratch(name)
    return name


def test_values_and_names(cases: int) -> None:
    seen = 0

    @swept(cases, VALUES)
    @given(compiled(), st.integers(0, 1 << 32))
    def sweep(made: Compiled, seed: int) -> None:
        nonlocal seen
        values = noise(Random(seed), made.codec.size)
        names: dict[str, bytes] = {}
        for data, _ in zip(values, range(VALUES), strict=False):
            check_value(made, data)
            name = check_name(made.codec, data)
            assert names.setdefault(name, data) == data
            seen += 1

    sweep()
    assert seen >= cases


def mutated(random: Random, text: str) -> str:
    """`text` with some pieces cut out, doubled, or put in; or something else."""
    if random.random() < 0.1:
        return "".join(random.choices(PIECES, k=random.randrange(12)))
    for _ in range(random.randrange(1, 4)):
        start = random.randrange(len(text) + 1)
        end = min(len(text), start + random.choice([0, 0, 1, 1, 2, 5]))
        piece = random.choice(
            [*PIECES, "", "", text[start : start + 3], str(random.getrandbits(40))]
        )
        text = text[:start] + piece + text[end:]
    return text


def check_text(codec: Codec, text: str, old: bytes) -> str:
    """Any text is a value, which is read back, or refused with a reason."""
    try:
        written = from_text(codec, text, old)
    except Incomplete:
        check_begins(codec, text)
        return "incomplete"
    except Refused as refused:
        assert refused.reason.isprintable()
        assert 0 <= refused.at <= len(text)
        return "refused"
    assert len(written) == codec.size
    assert from_text(codec, to_text(codec, written), written) == written
    return "taken"


def check_key(codec: Codec, name: str) -> None:
    try:
        key = from_name(codec, name)
    except Refused as refused:
        assert refused.reason
    else:
        check_name(codec, key)


def test_any_text_is_a_value_or_refused(cases: int) -> None:
    seen = {"incomplete": 0, "refused": 0, "taken": 0}

    @swept(5 * cases, TEXTS)
    @given(compiled(depth=2), st.integers(0, 1 << 32))
    def sweep(made: Compiled, seed: int) -> None:
        random, codec = Random(seed), made.codec
        old, data = random.randbytes(codec.size), random.randbytes(codec.size)
        text, name = to_text(codec, data), to_name(codec, data)
        for _ in range(TEXTS):
            seen[check_text(codec, mutated(random, text), old)] += 1
            check_key(codec, mutated(random, name))

    sweep()
    assert sum(seen.values()) >= 5 * cases
    assert min(seen.values()) > cases // 20, seen


@pytest.mark.parametrize("line", ['{"a": 1, "a": 2}', '{"a": NaN}', "01", '"\x01"', "[1,]", "1 2"])
def test_the_strict_reader_is_strict(line: str) -> None:
    with pytest.raises((AssertionError, ijson.JSONError)):
        strict(line)
