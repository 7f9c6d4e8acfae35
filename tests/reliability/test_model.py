"""Random operations through the mount, and the same on a dictionary: both agree."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.model import Kind, Twins, kinds
from support.model_slots import SlotTwins
from support.mounting import Mount
from support.soaking import Figure, tried

from fusefs.bpf.map import MapType

Operation = tuple[Any, ...]

EXAMPLES = 10  # in each turn
SOME = settings(
    deadline=None,
    max_examples=EXAMPLES,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
KINDS = kinds()
BAD_TEXTS = [
    "x\n",
    "[",
    '{"first": 4294967296}\n',
    '{"third": 1}',
    '{"first": 1} 2\n',
    "{}}",
    "\xff",
]
BAD_LINES = ["x", '{"key": 1}', '{"key": 1, "value": {}', '{"key": "x y", "value": {}}']
NO_KEYS = ["x", "1x", "-1", "4294967296", "1.5", "10.0.0.0_33", "10.0.0_8", "raw=00"]
SCRATCH = [".new", "sedAb12Cd", "backup~", "#save#", "tmpabcdefgh"]
WAYS = [
    os.O_CREAT | os.O_TRUNC,  # echo >
    os.O_CREAT | os.O_APPEND,  # echo >>
    os.O_CREAT | os.O_EXCL,  # set -C
    os.O_TRUNC,
    0,
]


def forms(kind: Kind) -> st.SearchStrategy[Any]:
    """What can be written as a value."""
    if kind.map_type == MapType.DEVMAP_HASH:
        return st.sampled_from([{"ifindex": 1}, {"interface": "lo"}, "lo", 1])
    members = {
        "first": st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2**32 - 1]),
        "second": st.integers(-(2**31), 2**31 - 1),
    }
    one = st.fixed_dictionaries({}, optional=members)
    return (
        one if kind.copies == 1 else one | st.lists(one, min_size=kind.copies, max_size=kind.copies)
    )


@st.composite
def in_pieces(draw: st.DrawFn, text: str) -> list[str]:
    """A text as it may be written: in several writes."""
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=3).map(sorted))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    return [piece for piece in pieces if piece]


@st.composite
def written(draw: st.DrawFn, kind: Kind) -> tuple[Any, list[str]]:
    """A form, and the pieces of a text that means it; None for the form when it is no value."""
    if draw(st.integers(0, 7)) == 0:
        return None, [draw(st.sampled_from(BAD_TEXTS))]
    form = draw(forms(kind))
    text = json.dumps(form, indent=draw(st.sampled_from([None, None, 1])))
    return form, draw(in_pieces(text + draw(st.sampled_from(["", "\n", "\n"]))))


@st.composite
def operations(draw: st.DrawFn, kind: Kind) -> Operation:
    """An operation of `Twins`, with what it takes."""
    key = draw(st.sampled_from(kind.keys))
    name = draw(st.sampled_from([key, key, *kind.spellings(key)]))
    names = [name for name in NAMES if name != "write_lines" or kind.takes_lines]
    match draw(st.sampled_from(names)):
        case "write":
            form, pieces = draw(written(kind))
            return "write", key, form, pieces, draw(st.sampled_from(WAYS)), name
        case "save":
            form, pieces = draw(written(kind))
            return "save", key, form, pieces, draw(st.sampled_from(SCRATCH))
        case "rename":
            return "rename", key, draw(st.sampled_from(kind.keys)), draw(st.integers(0, 1))
        case "refused":
            no_keys = [name for name in NO_KEYS if not (kind.prefixes and name == "raw=00")]
            return "refused", draw(st.sampled_from(no_keys))
        case "write_lines":
            line = st.tuples(st.sampled_from(kind.keys), forms(kind))
            bad = draw(st.sampled_from(["", "", "", *BAD_LINES]))
            return "write_lines", draw(st.lists(line, min_size=1, max_size=6)), bad
        case "set_beside":
            return "set_beside", key, draw(forms(kind))
        case ("read" | "delete") as what:
            return what, key, name
        case ("list" | "read_lines") as what:
            return (what,)
        case what:
            return what, key


# As often as each is to come.
NAMES = [
    *["write"] * 6, *["save"] * 3, *["rename"] * 3, *["delete"] * 2, *["write_lines"] * 2,
    *["read"] * 2, "stat", "touch", "list", "read_lines", "refused", "set_beside", "delete_beside",
]  # fmt: skip


@pytest.fixture
def names() -> Iterator[str]:
    """A name that the kernel knows nothing of."""
    return (f"model{number}" for number in itertools.count())


@pytest.mark.soak(short=0.7)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_map_and_a_dictionary_agree(
    mounted: Mount, names: Iterator[str], kind: Kind, span: float, figure: Figure
) -> None:
    done = 0

    @SOME
    @given(st.lists(operations(kind), min_size=8, max_size=40))
    def agree(todo: list[Operation]) -> None:
        nonlocal done
        name = next(names)
        with kind.make() as made:
            mounted.pin(name, made)
            twins = Twins(kind, made, mounted.path / name)
            for operation in todo:
                twins.do(*operation)
            twins.compare()
            done += twins.operations
            (mounted.source / name).unlink()

    turns = tried(agree, span)
    figure("examples", EXAMPLES * turns)
    figure("operations that agreed", done)


@st.composite
def slot_operations(draw: st.DrawFn, twins: type[SlotTwins]) -> Operation:
    """An operation of `SlotTwins`, with what it takes."""
    key, inner = draw(st.sampled_from(twins.keys)), draw(st.integers(0, twins.inner - 1))
    match draw(st.sampled_from(SLOT_NAMES)):
        case "rename":
            return "rename", key, draw(st.sampled_from(twins.keys)), draw(st.integers(0, 1))
        case "list":
            return ("list",)
        case ("remove" | "follow" | "delete_beside") as what:
            return what, key
        case what:
            return what, key, inner


SLOT_NAMES = [
    *["link"] * 3, *["replace"] * 3, *["rename"] * 2, *["remove"] * 2, "follow", "list",
    "set_beside", "delete_beside",
]  # fmt: skip


@pytest.mark.soak(short=0.7)
@pytest.mark.parametrize(
    "kind", [MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS], ids=lambda kind: kind.name.lower()
)
def test_slots_and_a_dictionary_agree(
    mounted: Mount, names: Iterator[str], kind: MapType, span: float, figure: Figure
) -> None:
    done = 0

    @SOME
    @given(st.lists(slot_operations(SlotTwins), min_size=8, max_size=40))
    def agree(todo: list[Operation]) -> None:
        nonlocal done
        with SlotTwins(kind, mounted, next(names)) as twins:
            for operation in todo:
                twins.do(*operation)
            twins.compare()
            done += twins.operations

    turns = tried(agree, span)
    figure("examples", EXAMPLES * turns)
    figure("operations that agreed", done)
