"""What is said of a link beside what all have: what it is attached to, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fusefs.bpf import link_names, names
from fusefs.bpf.kallsyms import kernel_symbols
from fusefs.bpf.link import Detail, Link
from fusefs.bpf.link_fields import LinkType
from fusefs.bpf.link_interfaces import interface_of
from fusefs.bpf.link_targets import cgroup_path, namespace_name, perf_device, traced
from fusefs.text.jsontext import Json, printable

Details = Mapping[str, Detail]
Info = dict[str, Json]

# NFPROTO_* and `enum nf_inet_hooks`, linux/netfilter.h, as nft(8) calls the latter.
_FAMILIES = {1: "inet", 2: "ipv4", 10: "ipv6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_FLAGS: Mapping[int, names.Enumeration] = {
    LinkType.KPROBE_MULTI: link_names.KPROBE_MULTI_FLAGS,
    LinkType.NETFILTER: link_names.NETFILTER_FLAGS,
    LinkType.UPROBE_MULTI: link_names.UPROBE_MULTI_FLAGS,
}
# Names of what is counted, by the type of a perf event.
_COUNTED = {0: link_names.PERF_HARDWARE, 1: link_names.PERF_SOFTWARE}
# What the kernel sets to 0, or leaves out, once a link of the type is detached.
_ATTACHED_TO: Mapping[int, str] = {
    LinkType.CGROUP: "cgroup_id",
    LinkType.NETNS: "netns_ino",
    LinkType.XDP: "ifindex",
    LinkType.STRUCT_OPS: "map_id",
    LinkType.TCX: "ifindex",
    LinkType.NETKIT: "ifindex",
    LinkType.SOCKMAP: "map_id",
}
_OUTPUT = "in the file of this name, which is not listed, as to read it runs the iterator"


def describe_link(link: Link) -> Info:
    """What there is by the type of the link; what its numbers stand for is behind each. Raises
    OSError."""
    details = link.details()
    info: Info = {}
    for name, detail in details.items():
        write = _WRITTEN.get(name)
        info[name] = write(link, details) if write else _json(detail)
        if beside := _BESIDE.get(name):
            info |= beside(link, details)
    place = _ATTACHED_TO.get(link.info.type)
    if place and not details.get(place):
        info["attached"] = False
    if link.info.type == LinkType.ITER:
        info["output"] = _OUTPUT
    return info


def _json(detail: Detail) -> Json:
    return [*detail] if isinstance(detail, list) else detail


def _number(details: Details, name: str) -> int:
    value = details.get(name, 0)
    return value if isinstance(value, int) else 0


def _numbers(details: Details, name: str) -> list[int]:
    value = details.get(name, [])
    return value if isinstance(value, list) else []


# A field as it is written, where it is not a plain number, string or list.


def _named(enumeration: names.Enumeration, field: str) -> Callable[[Link, Details], Json]:
    return lambda _link, details: names.name_of(enumeration, _number(details, field))


def _flags(link: Link, details: Details) -> Json:
    return [*names.flag_names(_FLAGS[link.info.type], _number(details, "flags"))]


def _family(_link: Link, details: Details) -> Json:
    family = _number(details, "pf")
    return _FAMILIES.get(family, family)


def _hook(_link: Link, details: Details) -> Json:
    hook = _number(details, "hooknum")
    return _HOOKS[hook] if hook < len(_HOOKS) else hook


def _perf_type(_link: Link, details: Details) -> Json:
    number = _number(details, "perf_type")
    named = names.name_of(link_names.PERF_TYPE, number)
    # Types beyond the fixed ones, whose end has a name of its own, are those of devices.
    return named if named not in ("max", number) else perf_device(number) or number


def _counted(_link: Link, details: Details) -> Json:
    counted = _COUNTED.get(_number(details, "perf_type"))
    config = _number(details, "perf_config")
    return names.name_of(counted, config) if counted else config


_WRITTEN: Mapping[str, Callable[[Link, Details], Json]] = {
    "attach_type": _named(names.ATTACH_TYPE, "attach_type"),
    "event_type": _named(link_names.PERF_EVENT_TYPE, "event_type"),
    "perf_type": _perf_type,
    "perf_config": _counted,
    "order": _named(link_names.CGROUP_ORDER, "order"),
    "flags": _flags,
    "pf": _family,
    "hooknum": _hook,
    # Too large for a program that takes JSON's numbers for floating-point ones.
    "addr": lambda _link, details: hex(_number(details, "addr")),
    "addrs": lambda _link, details: [hex(address) for address in _numbers(details, "addrs")],
}


# What comes beside a field.


def _function(link: Link, details: Details) -> Info:
    found = traced(
        link.info.prog_id, _number(details, "target_obj_id"), _number(details, "target_btf_id")
    )
    if found is None:
        return {}
    where: Info = {"target_prog_id": found.prog_id}
    if not found.prog_id:
        where = {"target_module": found.module}
    return {"target_name": found.name, **where}


def _cgroup(link: Link, details: Details) -> Info:
    if link.info.type == LinkType.ITER:  # fdinfo tells it, and of a cgroup-v1 hierarchy too
        return {}
    path = cgroup_path(_number(details, "cgroup_id"))
    return {} if path is None else {"cgroup_path": printable(path)}


def _interface(link: Link, details: Details) -> Info:
    attach_type = _number(details, "attach_type") if "attach_type" in details else None
    name = interface_of(link, _number(details, "ifindex"), attach_type)
    return {} if name is None else {"interface": printable(name)}


def _namespace(_link: Link, details: Details) -> Info:
    name = namespace_name(_number(details, "netns_ino"))
    return {} if name is None else {"netns": printable(name)}


def _functions(_link: Link, details: Details) -> Info:
    addresses = _numbers(details, "addrs")
    known = kernel_symbols.names(addresses)
    return {"functions": [known.get(address, hex(address)) for address in addresses]}


_BESIDE: Mapping[str, Callable[[Link, Details], Info]] = {
    "target_btf_id": _function,
    "cgroup_id": _cgroup,
    "ifindex": _interface,
    "netns_ino": _namespace,
    "addrs": _functions,
}
