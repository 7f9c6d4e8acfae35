"""How a map is read and written as text: its codecs, compiled once, and what it allows."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fusefs.bpf.btf import Btf, BtfError
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map
from fusefs.text.arrays import PerCpu
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec, raw_codec, type_name
from fusefs.tree.map_types import KEYED, Traits
from fusefs.tree.node import FRESH
from fusefs.tree.subject import Place, Subject

# Bytes of a value from which on rendering it takes longer than a listing should.
_LARGE = 4 << 20


class MapView:
    """What stays the same for a map as long as it lives. Holds no descriptor.

    Values of a `large` map are not read to tell their size: it is shown as 0, as a stream's.
    `key_type` and `value_type` are C types, or None without BTF; `problem` says why there is
    none although the map has BTF.
    """

    def __init__(self, bpf_map: Map) -> None:
        info = bpf_map.info
        self.max_entries: int = info.max_entries
        self.key_size = bpf_map.key_size
        self.stride = bpf_map.stride
        self.large = bpf_map.stride > _LARGE
        self.traits: Traits | None = KEYED.get(info.type)
        self.key_type: str | None = None
        self.value_type: str | None = None
        self.problem: str | None = None
        self.key: Codec = raw_codec(bpf_map.key_size)
        value: Codec = raw_codec(info.value_size)
        if self.traits and self.traits.fixed:
            self.key = _INDEX  # an index is a number, whether BTF says so or not
        if info.btf_id and info.btf_value_type_id:
            try:
                with BtfObject.from_id(info.btf_id) as btf_object:
                    btf = btf_object.parse()
                value = _fitting(btf, info.btf_value_type_id, info.value_size)
                self.value_type = type_name(btf, info.btf_value_type_id)
                if info.btf_key_type_id:
                    self.key = _fitting(btf, info.btf_key_type_id, info.key_size)
                    self.key_type = type_name(btf, info.btf_key_type_id)
            except (BtfError, PermissionError) as error:
                self.problem = f"the BTF of this map cannot be read: {error}"
        self.value = PerCpu(value, possible_cpus()) if bpf_map.per_cpu else value
        self._frozen = False
        self._checked = float("-inf")

    def freeze(self, bpf_map: Map) -> None:
        """Freeze the map."""
        bpf_map.freeze()
        self._frozen = True

    def frozen(self, subject: Subject) -> bool:
        """Whether the map is frozen, as of not long ago; `subject` is where to find it."""
        if not self._frozen and time.monotonic() - self._checked > FRESH:
            with subject.open() as obj:
                self._frozen = isinstance(obj, Map) and obj.frozen()
            self._checked = time.monotonic()
        return self._frozen


def _fitting(btf: Btf, type_id: int, size: int) -> Codec:
    codec = compile_codec(btf, type_id)
    if codec.size != size:
        raise BtfError(f"type {type_id} has {codec.size} bytes, and the map {size}")
    return codec


def _index_codec() -> Codec:
    types = BtfBuilder()
    index = types.integer("__u32", 4)
    return compile_codec(Btf.parse(types.build()), index)


_INDEX = _index_codec()


@dataclass(frozen=True, slots=True)
class Found:
    """An object that was found, and how it is read if it is a map."""

    subject: Subject
    kind: str
    view: MapView | None


class Finder:
    """Finds what is at a place now, and keeps what was learnt of it as long as it is the same."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._found: Found | None = None

    def now(self) -> Found:
        """What is there. Raises `gone()`; another OSError when the kernel does not open it."""
        subject = self.place.find()
        if self._found is None or self._found.subject is not subject:
            with subject.open() as obj:
                view = MapView(obj) if isinstance(obj, Map) else None
                self._found = Found(subject, obj.kind, view)
        return self._found
