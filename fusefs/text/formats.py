"""Formats: how a key, a value or a part of them is shown where its type does not say it well.

A setting is a target and a format, on a line `TARGET: FORMAT`:

    key: ipv4
    value.saddr: ipv6
    value.ports[]: be
    value: struct event
    percpu: sum

A target is `key` or `value`, with members behind dots, and `[]` for the elements of an array. A
format is one of `FORMATS`, or the name of a struct, union or enum to take the bytes for.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping
from typing import Literal, cast

from fusefs.bpf.btf import Btf, BtfError, Kind
from fusefs.text.addresses import Ipv4, Ipv6, Mac
from fusefs.text.arrays import Array
from fusefs.text.codec import Codec
from fusefs.text.compile import MAX_DEPTH, MAX_WEIGHT, compile_codec
from fusefs.text.composite import Composite
from fusefs.text.errors import Refused, clip
from fusefs.text.lpm import DATA, Lpm
from fusefs.text.records import Records, SizedRecords
from fusefs.text.scalars import Bitfield, Integer, Number, Pointer, Seconds
from fusefs.text.strings import CharArray, Raw

AUTO = "auto"
PERCPU = "percpu"
EACH, SUM = "each", "sum"
# How the values of a per-CPU map are shown: one for each CPU, or their sum.
_PERCPU_FORMATS = (EACH, SUM)

Settings = Mapping[str, str]
# The type of a kind and name, and the blob that it is in; None when there is none.
FindType = Callable[[Kind, str], tuple[Btf, int] | None]

_TARGET = re.compile(r"(key|value)((?:\.[^.\[\]:\s]+|\[\])*)")
_STEP = re.compile(r"\.([^.\[\]]+)|(\[\])")
_LINE = re.compile(r"[ \t]*([^:]*?)[ \t]*:[ \t]*(.*?)[ \t\r]*")
_NAMED = {"struct": Kind.STRUCT, "union": Kind.UNION, "enum": Kind.ENUM}
_MAX_INTEGER = 16


class Unfit(Refused):
    """A setting does not fit the map; `target` tells which."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(f"{target}: {reason}")
        self.target = target


def _integer(codec: Codec, *, signed: bool, order: str = sys.byteorder) -> Codec:
    if not 1 <= codec.size <= _MAX_INTEGER:
        raise Refused(f"it has {codec.size} bytes, and an integer has 1 to {_MAX_INTEGER}")
    byte_order = cast(Literal["little", "big"], order)
    return Integer(codec.name, codec.size, signed=signed, order=byte_order)


def _hex(codec: Codec) -> Codec:
    if isinstance(codec, Number):
        return Pointer(codec.name, codec.size, order=codec.order)
    return Raw(codec.size, codec.name)


def _of_size(make: Callable[[str], Codec], size: int) -> Callable[[Codec], Codec]:
    def sized(codec: Codec) -> Codec:
        if codec.size != size:
            raise Refused(f"it has {codec.size} bytes, and the format is for {size}")
        return make(codec.name)

    return sized


FORMATS: dict[str, Callable[[Codec], Codec]] = {
    AUTO: lambda codec: codec,
    "hex": _hex,
    "int": lambda codec: _integer(codec, signed=True),
    "uint": lambda codec: _integer(codec, signed=False),
    "be": lambda codec: _integer(codec, signed=False, order="big"),
    "ipv4": _of_size(Ipv4, 4),
    "ipv6": _of_size(Ipv6, 16),
    "mac": _of_size(Mac, 6),
    "str": lambda codec: CharArray(codec.size),
    "ktime": _of_size(lambda name: Seconds(name, 8), 8),
}
# Those that are for one size: records of another are shown as they are without a format.
_SIZES = {"ipv4": 4, "ipv6": 16, "mac": 6, "ktime": 8}


def parse_settings(text: str) -> dict[str, tuple[str, int]]:
    """The settings on the lines of `text`: target to format, and where in the text it stands.

    Lines that are empty or begin with `#` are passed over. Raises `Refused` for one that is none.
    """
    settings: dict[str, tuple[str, int]] = {}
    at = 0
    for line in text.split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            match = _LINE.fullmatch(line)
            if not match:
                raise Refused(f"expected TARGET: FORMAT, got {clip(line.strip())!r}", at)
            target, name = match[1], " ".join(match[2].split())
            check_setting(target, name, at + match.start(1), at + match.start(2))
            settings[target] = name, at + match.start(2)
        at += len(line) + 1
    return settings


def check_setting(target: str, name: str, at: int = 0, name_at: int = 0) -> None:
    """Raise `Refused` unless there can be such a setting; whether it fits is for a map to say."""
    if target == PERCPU:
        known: list[str] = list(_PERCPU_FORMATS)
    elif _TARGET.fullmatch(target):
        kind, _, type_name = name.partition(" ")
        if kind in _NAMED and type_name and type_name.isprintable():
            return
        known = [*FORMATS, *(f"{kind} NAME" for kind in _NAMED)]
    else:
        message = f"{clip(target)!r} is no target: it is key, value, or a part of them, or percpu"
        raise Refused(message, at)
    if name not in known:
        raise Refused(f"{clip(name)!r} is no format of {target}: {', '.join(known)}", name_at)


def with_format(codec: Codec, target: str, name: str, find: FindType) -> Codec:
    """`codec`, of a key or value, with a format for the part of it that `target` says.

    Raises `Unfit` when there is no such part, or its size is another.
    """
    match = _TARGET.fullmatch(target)
    assert match is not None  # `check_setting` has seen it
    steps = [step[1] or step[2] for step in _STEP.finditer(match[2])]

    def change(part: Codec) -> Codec:
        return _formatted(part, name, find)

    try:
        changed = _changed(codec, steps, change)
    except Refused as error:
        raise Unfit(target, error.reason) from None
    if changed.weight > MAX_WEIGHT or changed.depth > MAX_DEPTH:
        raise Unfit(target, "the value would be too large, or nested too deep")
    return changed


def is_part(target: str, whole: str) -> bool:
    """Whether `target` is a part of what the target `whole` is."""
    return target.startswith((f"{whole}.", f"{whole}["))


def _changed(codec: Codec, steps: list[str], change: Callable[[Codec], Codec]) -> Codec:
    """`codec` with `change` made to the part that `steps` lead to."""
    if not steps:
        return codec.of(change) if isinstance(codec, Lpm) else change(codec)

    step = steps[0]
    if isinstance(codec, Records):
        return codec.of(functools.partial(_changed, steps=steps, change=change))
    if isinstance(codec, Composite):
        # Names may have dots: those of static variables have the function's before them.
        for count in range(1, len(steps) + 1):
            if codec.member(name := ".".join(steps[:count])):
                return codec.of(
                    name, functools.partial(_changed, steps=steps[count:], change=change)
                )
    elif (isinstance(codec, Array) and codec.count and step == "[]") or (
        isinstance(codec, Lpm) and step in (DATA, codec.member)
    ):
        return codec.of(functools.partial(_changed, steps=steps[1:], change=change))
    what = "elements" if step == "[]" else f"field {clip(step)!r}"
    raise Refused(f"{codec.name} has no {what}")


def _formatted(codec: Codec, name: str, find: FindType) -> Codec:
    if isinstance(codec, Bitfield):
        number = _formatted(codec.whole, name, find)
        if not isinstance(number, Number) or number.order != sys.byteorder:
            raise Refused("it is a bitfield")
        return codec.of(number)
    kind, _, type_name = name.partition(" ")
    if isinstance(codec, Records):
        return _of_records(codec, name, find)
    if kind in _NAMED and type_name:
        return _as_type(codec, kind, type_name, find)
    return FORMATS[name](codec)


def _of_records(records: Records, name: str, find: FindType) -> Codec:
    kind, _, type_name = name.partition(" ")
    if kind in _NAMED and type_name:
        return Records(_named(kind, type_name, find))
    if name in _SIZES:
        return Records(FORMATS[name](Raw(_SIZES[name])))
    if name == AUTO:
        return records
    return Records() if name == "hex" else SizedRecords(FORMATS[name])


def _named(kind: str, name: str, find: FindType) -> Codec:
    """The codec of a type."""
    try:
        found = find(_NAMED[kind], name)
        if found is None:
            raise Refused(
                f"no BTF of the map, the kernel or a configured file has {kind} {clip(name)}"
            )
        return compile_codec(*found)
    except (BtfError, PermissionError) as error:
        raise Refused(f"{kind} {clip(name)}: {error}") from None


def _as_type(codec: Codec, kind: str, name: str, find: FindType) -> Codec:
    made = _named(kind, name, find)
    if made.size != codec.size:
        raise Refused(f"it has {codec.size} bytes, and {kind} {clip(name)} has {made.size}")
    return made


def formatted(key: Codec, value: Codec, settings: Settings, find: FindType) -> tuple[Codec, Codec]:
    """The codecs of a map's keys and values with all `settings` but that for CPUs.

    Raises `Unfit`.
    """
    codecs = {"key": key, "value": value}
    for target in in_order(settings):
        if target != PERCPU:
            of = "key" if target.startswith("key") else "value"
            codecs[of] = with_format(codecs[of], target, settings[target], find)
    return codecs["key"], codecs["value"]


def in_order(settings: Settings) -> list[str]:
    """The targets of `settings`, each after those that it is a part of."""
    return sorted(settings, key=lambda target: len(_STEP.findall(target)))
