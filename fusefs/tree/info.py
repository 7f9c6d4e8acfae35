"""What the kernel tells of an object, with names for its numbers, and the forms to show it in."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from datetime import UTC, datetime

from fusefs.bpf import names
from fusefs.bpf.btf import BtfError
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.link import Link
from fusefs.bpf.link_targets import attach_name
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.text.jsontext import Json, to_json
from fusefs.tree.link_info import describe_link
from fusefs.tree.map_types import Shape
from fusefs.tree.map_view import MapView

Info = dict[str, Json]

# What fdinfo repeats of the info call under another name.
_REPEATED = frozenset(
    {"map_type", "map_id", "prog_type", "prog_jited", "prog_tag", "link_type", "link_id",
     "prog_id", "prog_name"}
)  # fmt: skip
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*|0x[0-9a-f]+)")


def describe(obj: Object, view: MapView | None) -> Info:
    """All that is known of an object, by the kernel's names. Raises OSError."""
    fdinfo = obj.fdinfo()
    match obj:
        case Map():
            info = _map(obj, view, frozen=fdinfo.get("frozen") == "1")
        case Program():
            info = _program(obj)
        case Link():
            info = _link(obj)
        case BtfObject():
            info = _btf(obj)
        case _:
            raise AssertionError(obj)
    for name, text in fdinfo.items():
        if name not in info and name not in _REPEATED:
            info[name] = int(text, 0) if _NUMBER.fullmatch(text) else text
    if isinstance(owner := info.get("owner_prog_type"), int):
        info["owner_prog_type"] = names.name_of(names.PROGRAM_TYPE, owner)
    return info


def _map(bpf_map: Map, view: MapView | None, *, frozen: bool) -> Info:
    info = bpf_map.info
    kind = names.name_of(names.MAP_TYPE, info.type)
    fields: Info = {"type": kind, "name": "", "id": info.id}
    if view:
        fields |= {"key_type": view.btf.key_type, "value_type": view.btf.value_type}
        if view.btf.problem:
            fields["btf_problem"] = view.btf.problem
        if view.misfits:
            fields["format_problems"] = [*view.misfits.values()]
        if view.traits is None:
            fields["entries"] = f"not shown: maps of type {kind} are newer than this program"
        elif hidden := view.hidden:
            fields["entries"] = hidden
    fields.update(bpf_map.fields())
    fields["type"] = kind
    fields["map_flags"] = list(names.flag_names(names.MAP_FLAGS, info.map_flags))
    fields["frozen"] = frozen
    if inner := _inner(bpf_map, view):
        fields["inner_map"] = inner
    if frozen and (digest := bpf_map.sha256()):
        fields["hash"] = digest.hex()
    return fields


# What the maps in a map of maps have in common (bpf_map_meta_equal in kernel/bpf/map_in_map.c).
_INNER = ("key_size", "value_size", "max_entries", "map_extra")


def _inner(bpf_map: Map, view: MapView | None) -> Info | None:
    """What a map in this map of maps is like. The kernel does not tell which it was made for: one
    that is in it is an example, and there is none in an empty one."""
    if not view or not view.traits or view.traits.shape != Shape.MAPS:
        return None
    with contextlib.suppress(FileNotFoundError):  # it was taken out meanwhile
        for batch in bpf_map.batches():
            for _key, value in batch.pairs(bpf_map.key_size, bpf_map.stride):
                with Map.from_id(int.from_bytes(value, sys.byteorder)) as inner:
                    flags = names.flag_names(names.MAP_FLAGS, inner.info.map_flags)
                    kind: Info = {"type": names.name_of(names.MAP_TYPE, inner.info.type)}
                    sizes = {name: getattr(inner.info, name) for name in _INNER}
                    return kind | sizes | {"map_flags": [*flags]}
    return None


def _program(program: Program) -> Info:
    kind = names.name_of(names.PROGRAM_TYPE, program.info.type)
    fields: Info = {"type": kind, "name": "", "id": 0}
    fields.update(program.fields())
    fields["type"] = kind
    fields["gpl_compatible"] = bool(program.info.gpl_compatible)
    fields["load_time"] = _date(program.info.load_time)
    if attached := attach_name(program):
        fields["attach_name"] = attached
    fields["map_ids"] = [*program.map_ids()]
    fields["jited_func_lens"] = [*program.function_lengths()]
    fields["prog_tags"] = [*program.tags()]
    return fields


def _date(since_boot: int) -> str:
    """The time that is so many nanoseconds after the machine started, suspended or not."""
    now = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    when = datetime.fromtimestamp((now + since_boot) // 10**9, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _link(link: Link) -> Info:
    own = describe_link(link)
    fields: Info = {**link.fields()}
    fields["type"] = names.name_of(names.LINK_TYPE, link.info.type)
    return fields | own


def _btf(btf: BtfObject) -> Info:
    fields: Info = {
        "name": btf.name,
        "id": btf.info.id,
        "kernel_btf": btf.is_kernel,
        "size": btf.info.btf_size,
    }
    if btf.base:
        fields["base"] = btf.base
    try:
        fields["types"] = btf.count()
    except (BtfError, PermissionError) as error:
        fields["types"] = f"not known: {error}"
    return fields


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*( [A-Za-z0-9_*()./+\[\]-]+)*")
# Words that YAML 1.1 or 1.2 reads as something else than a string.
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def to_yaml(info: Info) -> str:
    """One line a value, `name: value`; a value is plain where YAML allows it, else JSON."""
    return "".join(f"{_plain(name)}: {_plain(value)}\n" for name, value in info.items())


def _plain(value: Json) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    return to_json(value)


def json_line(info: Info) -> str:
    """One JSON object, indented for people."""
    return json.dumps(info, indent=2) + "\n"
