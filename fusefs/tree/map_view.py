"""How a map is read and written as text: its codecs, compiled once, and what it allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fusefs.bpf.btf import Btf
from fusefs.bpf.cgroups import hierarchy
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map
from fusefs.text.arrays import SUM_REASON, PerCpu, PerCpuSum
from fusefs.text.codec import Codec
from fusefs.text.errors import Refused
from fusefs.text.formats import AUTO, PERCPU, SUM, Settings, Unfit, formatted, in_order, is_part
from fusefs.text.lpm import prefix
from fusefs.text.names import LONGEST, longest_name
from fusefs.tree.map_btf import MapBtf
from fusefs.tree.map_types import Shape, Traits, traits_of
from fusefs.tree.node import FRESH
from fusefs.tree.recent import Recent
from fusefs.tree.subject import Place, Subject

# Keys whose names are cut that are remembered by their digests: so many, and so many bytes.
_LONG_KEYS = 1 << 16
_LONG_KEY_BYTES = 16 << 20
# Numbers and the like that are written in one go, and in a value that is read to tell its size.
_PIECE_WEIGHT = 1 << 16
_NOT_PER_CPU = "the map is not per CPU"
_LIVE = "what is a key in this map is a live thing, whose name has no format"
_NONE: Settings = MappingProxyType({})
# Bytes of a value from which on rendering it takes longer than a listing should.
LARGE = 4 << 20


class MapView:
    """How a map is shown now. Kept as long as the same map is found; holds no descriptor.

    Values of a `large` map are not read to tell their size: it is shown as 0, as a stream's.
    The keys of a `live` map are no bytes, but the names of things (`fusefs.tree.storages`).
    `key` and `value` are the codecs, with the formats of `settings`; `misfits` says of settings why
    they do not fit the map, and were left aside. `long_names` tells whether names of keys may be
    cut; `long_keys` are keys that were found lately, by the digests that their names end in.
    """

    def __init__(self, bpf_map: Map, settings: Settings = _NONE, files: Sequence[Btf] = ()) -> None:
        """`files` are searched for types that formats name, after its own BTF and the kernel's."""
        info = bpf_map.info
        self.max_entries: int = info.max_entries
        self.key_size = bpf_map.key_size
        self.stride = bpf_map.stride
        self.per_cpu = bpf_map.per_cpu
        self.indexed = bpf_map.indexed
        self.prefixes = bpf_map.prefixes
        self.traits: Traits | None = traits_of(info.type, info.value_size)
        self.live = bool(self.traits and self.traits.live)
        self.btf = MapBtf(bpf_map, files)
        self._frozen = False
        self._checked = float("-inf")
        most = min(_LONG_KEYS, _LONG_KEY_BYTES // max(self.key_size, 1))
        self.long_keys = Recent[str, bytes](max(most, 2))
        self.misfits: dict[str, str] = {}
        self.use_fitting(settings)

    def use(self, settings: Settings) -> None:
        """Show keys and values as `settings` have it. Raises `Unfit`, and changes nothing then."""
        self._check(settings)
        key, value = formatted(self.btf.key, self.btf.value, settings, self.btf.find)
        self._show(key, value, settings)

    def _check(self, settings: Settings) -> None:
        """Raise `Unfit` for settings that no map of this type can have."""
        for target, name in settings.items():
            if target == PERCPU and not self.per_cpu:
                raise Unfit(target, _NOT_PER_CPU)
            if self.live and target.startswith("key") and name != AUTO:
                raise Unfit(target, _LIVE)

    def change(self, written: dict[str, str]) -> dict[str, str]:
        """Show keys and values as they are shown now, but for the settings `written`; those for
        the parts of what is written are dropped. Gives all that changed.

        Raises `Unfit`, and changes nothing then.
        """
        dropped = {t for t in self.settings if any(is_part(t, whole) for whole in written)}
        changed = dict.fromkeys(dropped, AUTO) | written
        kept = {t: name for t, name in self.settings.items() if t not in changed}
        self.use(kept | written)
        self.misfits = {
            target: reason
            for target, reason in self.misfits.items()
            if not any(target == whole or is_part(target, whole) for whole in written)
        }
        return changed

    def use_fitting(self, settings: Settings) -> None:
        """Show keys and values as those of `settings` have it that fit. Raises OSError, and changes
        nothing then. How the values of CPUs are shown may be set for all maps: it is no misfit of
        those that have none."""
        key, value = self.btf.key, self.btf.value
        fitting: dict[str, str] = {}
        misfits: dict[str, str] = {}
        for target in in_order(settings):
            if target == PERCPU and not self.per_cpu:
                continue
            one = {target: settings[target]}
            try:
                self._check(one)
                if settings[target] != AUTO:
                    key, value = formatted(key, value, one, self.btf.find)
                    fitting |= one
            except Refused as error:
                misfits[target] = error.reason
        self._show(key, value, fitting)
        self.misfits = misfits

    def _show(self, key: Codec, value: Codec, settings: Settings) -> None:
        self.key = key
        if self.per_cpu:
            kind = PerCpuSum if settings.get(PERCPU) == SUM else PerCpu
            value = kind(value, possible_cpus())
        self.value: Codec = value
        self.large = is_large(value)
        # Why values cannot be written as they are shown; empty when they can.
        self.summed = SUM_REASON if isinstance(value, PerCpuSum) else ""
        self.long_names = longest_name(key) > LONGEST
        self.settings = {target: name for target, name in settings.items() if name != AUTO}

    def piece(self, most: int) -> int:
        """How many entries, of no more than `most`, are written in one go: others wait so long."""
        weight = self.key.weight + self.value.weight
        return max(min(most, _PIECE_WEIGHT // weight), 1)

    def same(self, key: bytes) -> bytes:
        """What is equal for keys that the kernel takes for the same, and only for those."""
        return prefix(key) if self.prefixes else key

    def past_end(self, keys: bytes) -> bool:
        """Whether one of the keys, which lie one after the other, is an index that the map cannot
        have."""
        return self.indexed and max(memoryview(keys).cast("I")) >= self.max_entries

    @property
    def hidden(self) -> str:
        """What is to be said of entries that are not shown; empty when all are."""
        if self.traits and self.traits.shape == Shape.OF_CGROUPS and hierarchy() is None:
            return "not shown: the cgroup2 file system is not mounted here"
        return self.traits.hidden if self.traits else ""

    def freeze(self, bpf_map: Map) -> None:
        """Freeze the map."""
        bpf_map.freeze()
        self._frozen = True

    def frozen(self, subject: Subject) -> bool:
        """Whether the map is frozen, as of not long ago; `subject` is where to find it."""
        if not self._frozen and time.monotonic() - self._checked > FRESH:
            with subject.borrow() as obj:
                self._frozen = isinstance(obj, Map) and obj.frozen()
            self._checked = time.monotonic()
        return self._frozen


def is_large(codec: Codec) -> bool:
    """Whether it takes too long to write a value to tell its size."""
    return codec.size > LARGE or codec.weight > _PIECE_WEIGHT


@dataclass(frozen=True, slots=True)
class Found:
    """An object that was found, its kind and id; and how it is read if it is a map."""

    subject: Subject
    kind: str
    id: int
    view: MapView | None


class Finder:
    """Finds what is at a place now, and keeps what was learnt of it as long as it is the same."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._found: Found | None = None
        self._where = place.where

    def now(self) -> Found:
        """What is there. Raises `gone()`; another OSError when the kernel does not open it."""
        subject = self.place.find()
        if self._where != self.place.where:  # what is there goes by another name now
            if self._found and self._found.view:
                self._found.view.use_fitting(self.place.settings())
            self._where = self.place.where
        if self._found is None or self._found.subject is not subject:
            with subject.open() as obj:
                view = self._view(obj) if isinstance(obj, Map) else None
                self._found = Found(subject, obj.kind, obj.info.id, view)
        return self._found

    def _view(self, bpf_map: Map) -> MapView:
        return MapView(bpf_map, self.place.settings(), self.place.context.formats.files)
