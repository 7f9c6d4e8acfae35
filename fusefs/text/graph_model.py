"""What a picture of BPF objects is made of: what is in it, and what ties it together."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field


class Kind(enum.StrEnum):
    """The kinds of nodes, in the order in which they are written."""

    ATTACHMENT = "attachment"
    LINK = "link"
    PROGRAM = "program"
    MAP = "map"
    BTF = "btf"


class Label(enum.StrEnum):
    """What edges say. Each is an arrow from what comes first when a program runs, or is used."""

    ATTACHED = "attached to"  # from an attachment to the link or program that is attached to it
    RUNS = "runs"  # from a link to its program, or to the map of a struct_ops; from that to those
    USES = "uses"  # from a program or an iterator to a map; from an object to its BTF
    TAIL_CALL = "tail call"  # from a prog_array to a program in it
    INNER_MAP = "inner map"  # from a map of maps to a map in it


# What names a node: its kind and its id.
Key = tuple[Kind, int | str]


@dataclass(frozen=True, slots=True)
class Node:
    """An object, or what something is attached to.

    All texts may hold anything. `id` is the kernel's for an object; an attachment has whatever sets
    it apart from others of its kind. `type` is a map type, a program type, a link type, or for an
    attachment what it is: `interface`, `cgroup`, `function`, `tracepoint`, `netns`, …. `details`
    are some short words each. `href` is a relative link to where more is told of it, or empty.
    """

    kind: Kind
    id: int | str
    name: str
    type: str
    details: Sequence[str] = ()
    pins: Sequence[str] = ()
    href: str = ""

    @property
    def key(self) -> Key:
        return self.kind, self.id


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow from one node to another. It is left out of the picture when either is not in it,
    as when an object has gone while the facts were collected."""

    source: Key
    target: Key
    label: Label = Label.USES


@dataclass(slots=True)
class Graph:
    """What is to be drawn, under a title. `focus` is what the picture is about, if not about all:
    it stands out, and is never gathered with others."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    title: str = ""
    focus: Key | None = None


def rank(key: Key) -> tuple[int, bool, int | str]:
    """Where a node comes among others: by kind and id."""
    kind, identity = key
    return [*Kind].index(kind), isinstance(identity, str), identity
