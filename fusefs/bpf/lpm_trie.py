"""LPM tries: which prefixes are there, and going through them while they change.

A lookup finds the longest prefix that matches, so that of a prefix which is absent it gives the
value of another. The kernel's own batches look each key up so, a moment after they have found it.

Source: kernel/bpf/lpm_trie.c, trie_lookup_elem and trie_get_next_key. Keys are a u32, the length in
bits, and as many bytes as the longest prefix has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from fusefs.bpf.batch import Batch, split

if TYPE_CHECKING:
    from fusefs.bpf.map import Map

_LENGTH = 4  # bytes of a key that tell the length of the prefix
# How often the walk through a trie may start over.
_RESTARTS = 100
# How often a value is looked up that is the covering prefix's too; and one that may be, since that
# changes all the time.
_TRIES = 8
_TRIES_AMID_CHANGES = 64
# So many batches are read to come as far as a walk did that has passed over them.
_AHEAD = 16


def lookup(bpf_map: Map, key: bytes) -> bytes:
    """The value of this very prefix. Raises FileNotFoundError when the trie does not have it.

    A value is another prefix's only if that is the one which covers this. So one that differs from
    all that was seen of that is certain, if that was the same before and after, or if it comes
    again while that changes. Otherwise it is looked up again: somebody would have to take the
    prefix out and put it back each time.
    """
    others: set[bytes | None] = set()
    value = b""
    for tried in range(_TRIES_AMID_CHANGES):
        others.add(before := _covering(bpf_map, key))
        found = bpf_map.longest_match(key)
        if found is None or not has(bpf_map, key):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        last, value = value, found
        if value not in others:
            others.add(after := _covering(bpf_map, key))
            if value not in others and (before == after or value == last):
                break
        elif value == before and tried >= _TRIES - 1:
            break
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
    Linux 6.13, another of the same length could be taken for it). Which is the first may change.
    """
    first = bpf_map.next_key(None)
    for _ in range(_TRIES):
        following = bpf_map.next_key(key)
        before, first = first, bpf_map.next_key(None)
        if following in (before, first):
            return False
        if before == first:
            break
    return True


def _last_left(bpf_map: Map, batch: Batch) -> bytes:
    """The last key of a batch that the trie still has, for a walk to go on from. Where all were
    deleted, there is little before them that it would pass again."""
    keys = list(split(batch.keys, bpf_map.key_size))
    return next((key for key in reversed(keys) if has(bpf_map, key)), keys[-1])


def place(key: bytes) -> int:
    """Where a key comes in the order of a trie: before all that lie behind its last address, and of
    those with the same last address, before the shorter prefixes (a walk in postorder)."""
    rest = max((len(key) - 4) * 8 - int.from_bytes(key[:4], sys.byteorder), 0)
    return (int.from_bytes(key[4:], "big") | (1 << rest) - 1) << 16 | rest


# What gives the batch of a trie after a key, or the first, and whether it is the last.
Read = Callable[[bytes | None], tuple[Batch, bool]]
# A batch, and the key after which it was found.
Look = tuple[bytes | None, Batch]


def looks(bpf_map: Map, read: Read) -> Iterator[Look]:
    """The batches of a trie as the kernel gives them, for `certain`: with values of other prefixes
    now and then, and again from the first when the prefix that it stands on was deleted.

    Raises OSError, EAGAIN: a walk that is always thrown back has an end.
    """
    most = _RESTARTS * (bpf_map.info.max_entries + 1)
    position: bytes | None = None
    ended = False
    while not ended:
        batch, ended = read(position)
        if not batch.count:
            return
        yield position, batch
        position = _last_left(bpf_map, batch)
        most -= batch.count
        if most < 0:
            raise OSError(errno.EAGAIN, "the map changes faster than it can be walked")


def certain(bpf_map: Map, found: Iterable[Look], read: Read) -> Iterator[Batch]:
    """The batches of what `looks` has found, without what is not there, and without what comes
    again.

    Each is looked at a second time, by another `read` that asks for as many as the first did: what
    is the same then is certain. And the order in which the kernel gives prefixes is known.
    """
    size = bpf_map.key_size
    reached = -1
    last: bytes | None = None
    for position, look in found:
        again, _ = read(position)
        batch = again
        if look != again or not reached < place(look.keys[:size]):
            batch = _certain(bpf_map, look, _as_far(look, again, read, size), reached)
        if batch.count:
            reached = place(batch.keys[-size:])
        last = look.keys[-size:]
        yield batch
    while last is not None:  # the first looks may have passed over the end
        look, _ = read(last)
        if not look.count or not reached < place(look.keys[-size:]):
            return
        batch = _certain(bpf_map, look, read(last)[0], reached)
        if not batch.count:
            return
        reached, last = place(batch.keys[-size:]), look.keys[-size:]
        yield batch


def _as_far(look: Batch, again: Batch, read: Read, size: int) -> Batch:
    """The second look with what follows it, up to where the first one ended that has passed over
    something; but not for long."""
    end = place(look.keys[-size:])
    for _ in range(_AHEAD):
        if not again.count or not (last := place(again.keys[-size:])) < end:
            break
        more, _ = read(again.keys[-size:])
        if not more.count or not last < place(more.keys[:size]):
            break
        keys, values = again.keys + more.keys, again.values + more.values
        again = Batch(again.count + more.count, keys, values)
    return again


def _certain(bpf_map: Map, batch: Batch, again: Batch, reached: int) -> Batch:
    """What of a batch is there, and beyond the place that was reached. What is not the same at
    another look is looked up key by key, and so is what came at that look alone: the kernel passes
    over what is below a prefix that is replaced meanwhile."""
    size, stride = bpf_map.key_size, bpf_map.stride
    one, other = (dict(each.pairs(size, stride)) for each in (batch, again))
    end = max(map(place, one))
    pairs: dict[bytes, bytes] = {}
    for key in sorted({**one, **other}, key=place):
        if reached < place(key) <= end:
            with contextlib.suppress(FileNotFoundError):
                certain = one.get(key) == other.get(key)
                pairs[key] = one[key] if certain else lookup(bpf_map, key)
    return Batch(len(pairs), b"".join(pairs), b"".join(pairs.values()))
