"""The order of the prefixes in an LPM trie, and going through them while they change.

Source: kernel/bpf/lpm_trie.c, trie_get_next_key. Keys are a u32, the length in bits, and as many
bytes as the longest prefix has.
"""

from __future__ import annotations

import errno
import operator
import sys
from collections.abc import Iterator

from fusefs.bpf.batch import Batch, split


def place(key: bytes) -> int:
    """Where a key comes in the order of a trie: before all that lie behind its last address, and of
    those with the same last address, before the shorter prefixes (a walk in postorder)."""
    rest = max((len(key) - 4) * 8 - int.from_bytes(key[:4], sys.byteorder), 0)
    return (int.from_bytes(key[4:], "big") | (1 << rest) - 1) << 16 | rest


def onward(batches: Iterator[Batch], key_size: int, stride: int, most: int) -> Iterator[Batch]:
    """The batches of a trie without what comes again.

    When the prefix that the kernel stands on is deleted, it starts over from the first; but the
    order in which it gives them is known. Raises OSError, EAGAIN, after `most` entries: a walk that
    is always thrown back has an end.
    """
    last = -1
    for batch in batches:
        places = [place(key) for key in split(batch.keys, key_size)]
        if all(map(operator.lt, [last, *places], places)):
            yield batch
        else:
            new: list[tuple[bytes, bytes]] = []
            for at, pair in zip(places, batch.pairs(key_size, stride), strict=True):
                if at > last:
                    new.append(pair)
                    last = at
            keys, values = (b"".join(pair[side] for pair in new) for side in (0, 1))
            yield Batch(len(new), keys, values)
        last = max([last, *places[-1:]])
        most -= batch.count
        if most < 0:
            raise OSError(errno.EAGAIN, "the map changes faster than it can be walked")
