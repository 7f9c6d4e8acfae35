"""LPM tries: which prefixes are there, and going through them while they change.

A lookup finds the longest prefix that matches, so that of a prefix which is absent it gives the
value of another. The kernel's own batches look each key up so, a moment after they have found it.

Source: kernel/bpf/lpm_trie.c, trie_lookup_elem and trie_get_next_key. Keys are a u32, the length in
bits, and as many bytes as the longest prefix has.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fusefs.bpf.batch import Batch, split

if TYPE_CHECKING:
    from fusefs.bpf.map import Map

_LENGTH = 4  # bytes of a key that tell the length of the prefix
# How often a value is looked up that may be another prefix's.
_TRIES = 4


def lookup(bpf_map: Map, key: bytes) -> bytes:
    """The value of this very prefix. Raises FileNotFoundError when the trie does not have it.

    A value is another prefix's only if that is the one which covers this; so one that differs
    from that is certain. Where they are the same it is looked up again: somebody would have to
    take the prefix out and put it back each time.
    """
    tries = 0
    while True:
        value = bpf_map.longest_match(key)
        if value is None or not has(bpf_map, key):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        tries += 1
        if tries == _TRIES or value != _covering(bpf_map, key):
            return value


def _covering(bpf_map: Map, key: bytes) -> bytes | None:
    """The value of the longest prefix that covers this one, or None when none does."""
    length = int.from_bytes(key[:_LENGTH], sys.byteorder)
    if not length:
        return None
    return bpf_map.longest_match((length - 1).to_bytes(_LENGTH, sys.byteorder) + key[_LENGTH:])


def has(bpf_map: Map, key: bytes) -> bool:
    """Whether a trie has this very prefix.

    After a prefix that it does not have comes the first of all, which follows no other (before
    Linux 6.13, another of the same length could be taken for it).
    """
    following = bpf_map.next_key(key)
    return following is None or following != bpf_map.next_key(None)


def certain(bpf_map: Map, batch: Batch, again: Batch) -> Batch:
    """A batch without what was not there, by another look at the same place.

    What is the same in both is taken for certain, and the rest is looked up key by key.
    """
    if batch == again:
        return batch
    size, stride = bpf_map.key_size, bpf_map.stride
    others = dict(again.pairs(size, stride))
    pairs: dict[bytes, bytes] = {}
    for key, value in batch.pairs(size, stride):
        with contextlib.suppress(FileNotFoundError):
            pairs[key] = value if others.get(key) == value else lookup(bpf_map, key)
    return Batch(len(pairs), b"".join(pairs), b"".join(pairs.values()))


def last_left(bpf_map: Map, batch: Batch) -> bytes:
    """The last key of a batch that the trie still has, for a walk to go on from. Where all were
    deleted, there is little before them that it would pass again."""
    keys = list(split(batch.keys, bpf_map.key_size))
    return next((key for key in reversed(keys) if has(bpf_map, key)), keys[-1])


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
