"""What each type of map offers: one row a type.

Source: kernel/bpf/hashtab.c, arraymap.c and lpm_trie.c in the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusefs.bpf.map import MapType


@dataclass(frozen=True, slots=True)
class Traits:
    """What a type of map does with its entries.

    `fixed`: every index below max_entries is there for good; it can be set, not made or removed.
    `prefixes`: keys are prefixes, and differ only in the bits that they have.
    """

    fixed: bool = False
    prefixes: bool = False


# Types whose entries are shown as one file a key. Others have their info alone.
KEYED = {
    MapType.HASH: Traits(),
    MapType.LRU_HASH: Traits(),
    MapType.PERCPU_HASH: Traits(),
    MapType.LRU_PERCPU_HASH: Traits(),
    MapType.ARRAY: Traits(fixed=True),
    MapType.PERCPU_ARRAY: Traits(fixed=True),
    MapType.LPM_TRIE: Traits(prefixes=True),
}
