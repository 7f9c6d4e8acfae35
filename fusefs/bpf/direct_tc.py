"""Programs that tc(8) has attached: filters of the kind bpf, and actions of the kind bpf of filters
of any kind.

Source: linux/pkt_cls.h, linux/rtnetlink.h, linux/tc_act/tc_bpf.h; net/sched/cls_api.c, cls_bpf.c
and act_bpf.c in the kernel; tc-bpf(8).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from fusefs.bpf.direct_netlink import attributes, dump, interface_name
from fusefs.bpf.direct_places import Direct, Turns, unless_refused

_SCHED_CLS, _SCHED_ACT = 3, 4  # `enum bpf_prog_type`
_NEW_QDISC, _GET_QDISC = 36, 38  # RTM_NEWQDISC, RTM_GETQDISC
_NEW_FILTER, _GET_FILTER = 44, 46  # RTM_NEWTFILTER, RTM_GETTFILTER
_MESSAGE = struct.Struct("=BxxxiIII")  # struct tcmsg: family, index, handle, parent, info
_KIND, _OPTIONS, _CHAIN = 1, 2, 11  # TCA_KIND, TCA_OPTIONS, TCA_CHAIN
_PROGRAM = 11  # TCA_BPF_ID
_ACTION_KIND, _ACTION_OPTIONS, _ACTION_PROGRAM = 1, 2, 9  # TCA_ACT_…, TCA_ACT_BPF_ID
# Where filters of a kind have their actions, such as TCA_BPF_ACT.
_ACTIONS = {
    b"bpf": 1, b"cgroup": 1, b"matchall": 2, b"basic": 3, b"flower": 3, b"fw": 4, b"route": 6,
    b"u32": 7, b"flow": 9,
}  # fmt: skip
# Where the filters of these qdiscs are, TC_H_INGRESS with TC_H_MIN_INGRESS or TC_H_MIN_EGRESS.
_HOOKS: Mapping[bytes, Mapping[int, str]] = {
    b"clsact": {0xFFFFFFF2: "tc ingress", 0xFFFFFFF3: "tc egress"},
    b"ingress": {0xFFFF0000: "tc ingress"},
}


@dataclass(frozen=True, slots=True)
class _Hook:
    """Where filters may be: the number of an interface, a parent for them, and what to call it."""

    index: int
    parent: int
    name: str


def attached_by_tc(types: Collection[int]) -> Turns:
    """The programs that tc has attached to interfaces of this network namespace, if there are any
    of a type that can be. None of them has a link. Raises OSError.

    Looked at are the filters of qdiscs; those of the classes within are not, nor actions that no
    filter refers to.
    """
    if _SCHED_CLS not in types and _SCHED_ACT not in types:
        return
    with unless_refused():
        for message in dump(_GET_QDISC, _NEW_QDISC, _MESSAGE.pack(0, 0, 0, 0, 0)):
            for hook in _hooks(message) if message else ():
                with unless_refused():
                    yield from _filters(hook)
                yield None


def _hooks(message: bytes) -> Iterator[_Hook]:
    """Where the qdisc that a message is about may have filters."""
    _, index, handle, *_ = _MESSAGE.unpack_from(message)
    kind = attributes(message[_MESSAGE.size :]).get(_KIND, b"").rstrip(b"\0")
    # One that nobody has given a handle cannot be named, and so has no filters.
    ordinary = {handle: f"tc {handle >> 16:x}:"} if handle else {}
    for parent, name in _HOOKS.get(kind, ordinary).items():
        yield _Hook(index, parent, name)


def _filters(hook: _Hook) -> Turns:
    question = _MESSAGE.pack(0, hook.index, 0, hook.parent, 0)
    for message in dump(_GET_FILTER, _NEW_FILTER, question):
        for program_id, how in programs(message) if message else ():
            name = interface_name(hook.index)
            yield Direct(program_id, "interface", name, f"{hook.name} {how}")
        if message is None:
            yield None


def programs(message: bytes) -> Iterator[tuple[int, str]]:
    """The ids of the programs that a filter has, by the body of the message about it; and its
    preference, and its chain and handle where they are not those of the first."""
    _, _, handle, _, info = _MESSAGE.unpack_from(message)
    told = attributes(message[_MESSAGE.size :])
    kind = told.get(_KIND, b"").rstrip(b"\0")
    options = attributes(told.get(_OPTIONS, b""))
    chain = _number(told, _CHAIN)
    how = f"pref {info >> 16}" + (f" chain {chain}" if chain else "")
    if handle > 1:
        how += f" handle {handle:#x}"
    if kind == b"bpf" and (number := _number(options, _PROGRAM)):
        yield number, how
    for action in attributes(options.get(_ACTIONS.get(kind, 0), b"")).values():
        about = attributes(action)
        if about.get(_ACTION_KIND, b"").rstrip(b"\0") == b"bpf":
            made = attributes(about.get(_ACTION_OPTIONS, b""))
            if number := _number(made, _ACTION_PROGRAM):
                yield number, f"{how} action"


def _number(told: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(told.get(kind, b""), sys.byteorder)
