"""What is tied to an object, for `info`: what uses it, what it is in, its pins, who holds it."""

from __future__ import annotations

from collections.abc import Iterable

from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.holders import Holders
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.bpf.survey import Snapshot
from fusefs.text.jsontext import Json, printable
from fusefs.tree.info import Info


def related(obj: Object, snapshot: Snapshot) -> Info:
    """By names in the manner of the kernel's own `map_ids`. `attached_to` is what a program is
    attached to without a link; `holders` are processes that have it open, without this one."""
    number: int = obj.info.id
    fields: Info = {}
    match obj:
        case Map():
            fields["prog_ids"] = _ids(snapshot.users.get(number, ()))
            fields["link_ids"] = _ids(snapshot.linked.get(number, ()))
            fields["outer_map_ids"] = _ids(snapshot.tables(Map, number))
            if number in snapshot.operations:
                fields["member_prog_ids"] = _ids(snapshot.operations[number])
            if number in snapshot.slots:
                inside = "inner_map_ids" if snapshot.target(number) is Map else "target_prog_ids"
                fields[inside] = _ids(snapshot.slots[number])
        case Program():
            fields["link_ids"] = _ids(snapshot.runners.get(number, ()))
            fields["attached_to"] = [
                printable(f"{direct.place} {direct.name} ({direct.how})")
                for direct in snapshot.direct
                if direct.program_id == number
            ]
            if number in snapshot.operators:
                fields["struct_ops_map_ids"] = _ids(snapshot.operators[number])
            fields["prog_array_ids"] = _ids(snapshot.tables(Program, number))
        case BtfObject():
            fields["map_ids"] = _ids(n for n, m in snapshot.maps.items() if m.btf_id == number)
            fields["prog_ids"] = _ids(n for n, p in snapshot.programs.items() if p.btf_id == number)
    key = obj.kind, number
    if not isinstance(obj, BtfObject):  # which cannot be pinned
        fields["pins"] = [printable(path) for path in snapshot.pins.get(key, ())]
        if snapshot.closed:
            directories = f"{snapshot.closed} director{'y' if snapshot.closed == 1 else 'ies'}"
            fields["other_pins"] = f"not known: {directories} of bpffs cannot be looked into"
    return fields | _holders(snapshot.holders, key)


def _holders(holders: Holders | None, key: tuple[str, int]) -> Info:
    """The processes that have an object open, and what is not known of them."""
    if holders is None:
        return {"holders": "not known: processes could not be looked through in time"}
    found: list[Json] = [
        {"pid": holder.pid, "comm": printable(holder.comm)} for holder in holders.get(key, ())
    ]
    if not holders.closed:
        return {"holders": found}
    why = f"not known: {holders.closed} processes cannot be looked into (that takes CAP_SYS_PTRACE)"
    return {"holders": found, "other_holders": why} if found else {"holders": why}


def _ids(numbers: Iterable[int]) -> list[Json]:
    return [*sorted(numbers)]
