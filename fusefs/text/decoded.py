"""The types of a blob, decoded once for all that is made of them."""

from __future__ import annotations

from fusefs.bpf import btf as bpf
from fusefs.bpf.btf import Btf, BtfError

KEPT = 2048  # types that are kept: a few megabytes, however many there are


class Types:
    """The types of a blob, decoded; the latest are kept."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._types: dict[int, bpf.Type] = {}
        self._stripped: dict[int, int] = {}

    def __getitem__(self, type_id: int) -> bpf.Type:
        found = self._types.get(type_id)
        if found is None:
            found = self._btf.type(type_id)
            if len(self._types) == KEPT:
                self._types.clear()
            self._types[type_id] = found
        return found

    def strip(self, type_id: int) -> int:
        """The id below all typedefs, qualifiers and tags."""
        if not isinstance(self[type_id], bpf.Alias):
            return type_id
        passed = []
        below = type_id
        while isinstance(alias := self[below], bpf.Alias) and below not in self._stripped:
            passed.append(below)
            if len(passed) > len(self._btf):
                raise BtfError(f"type {type_id} refers to itself")
            below = alias.target
        below = self._stripped.get(below, below)
        self._stripped.update(dict.fromkeys(passed, below))
        return below

    def below(self, type_id: int) -> bpf.Type:
        """The type below all typedefs, qualifiers and tags."""
        return self[self.strip(type_id)]
