"""What links are attached to, for the picture of it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fusefs.bpf.link import Link
from fusefs.bpf.link_fields import LinkType
from fusefs.text.jsontext import Json
from fusefs.tree.link_info import describe_link

Told = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a link is attached to: what that is, such as `interface`, and its name; and words on how
    it is."""

    type: str
    name: str
    how: tuple[str, ...] = ()


def attachment(link: Link) -> Attachment | None:
    """Of a link; None for one that is attached to nothing, or to a map. Raises OSError."""
    told = describe_link(link)
    find = _FOUND.get(link.info.type)
    return find(told) if find and told.get("attached", True) else None


def _how(told: Told, *fields: str) -> tuple[str, ...]:
    return tuple(str(told[field]) for field in fields if field in told)


def _interface(told: Told) -> Attachment:
    # One without a name is in another network namespace, or may be.
    name = told.get("interface") or f"interface {told.get('ifindex')} elsewhere"
    return Attachment("interface", str(name), _how(told, "attach_type"))


def _cgroup(told: Told) -> Attachment:
    name = told.get("cgroup_path") or f"cgroup {told.get('cgroup_id')}"
    return Attachment("cgroup", str(name), _how(told, "attach_type"))


def _namespace(told: Told) -> Attachment:
    name = told.get("netns") or f"net:[{told.get('netns_ino')}]"
    return Attachment("netns", str(name), _how(told, "attach_type"))


def _tracepoint(told: Told) -> Attachment:
    return Attachment("tracepoint", str(told.get("tp_name", "?")))


def _function(told: Told) -> Attachment:
    return Attachment("function", str(told.get("target_name", "?")), _how(told, "attach_type"))


def _at(told: Told, name: str) -> str:
    offset = told.get("offset")
    text = str(told.get(name, "?"))
    return f"{text}+{offset:#x}" if isinstance(offset, int) and offset else text


def _event(told: Told) -> Attachment:
    kind = str(told.get("event_type", "event"))
    if kind.startswith("u"):
        return Attachment("file", _at(told, "file_name"), (kind,))
    if kind.startswith("k"):
        return Attachment("function", _at(told, "func_name"), (kind,))
    if "tp_name" in told:
        return _tracepoint(told)
    return Attachment("event", " ".join(_how(told, "perf_type", "perf_config")))


def _several(told: Told) -> Attachment:
    functions = told.get("functions")
    if isinstance(functions, list) and len(functions) == 1:
        return Attachment("function", str(functions[0]), ("kprobe_multi",))
    return Attachment("functions", f"{told.get('count')} functions", ("kprobe_multi",))


def _hook(told: Told) -> Attachment:
    priority = f"priority {told.get('priority')}"
    return Attachment("netfilter", f"{told.get('pf')} {told.get('hooknum')}", (priority,))


_FOUND: Mapping[int, Callable[[Told], Attachment]] = {
    LinkType.RAW_TRACEPOINT: _tracepoint,
    LinkType.TRACING: _function,
    LinkType.CGROUP: _cgroup,
    LinkType.ITER: lambda told: Attachment("iterator", str(told.get("target_name", "?"))),
    LinkType.NETNS: _namespace,
    LinkType.XDP: _interface,
    LinkType.PERF_EVENT: _event,
    LinkType.KPROBE_MULTI: _several,
    LinkType.NETFILTER: _hook,
    LinkType.TCX: _interface,
    LinkType.UPROBE_MULTI: lambda told: Attachment(
        "file", str(told.get("path", "?")), ("uprobe_multi",)
    ),
    LinkType.NETKIT: _interface,
}
