"""The keys that a listing of a map has found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusefs.bpf.map import Map
from fusefs.text.codec import Codec
from fusefs.text.value import to_texts
from fusefs.tree.alike import Alike, StandIn
from fusefs.tree.node import FRESH, Node, gone

if TYPE_CHECKING:
    from fusefs.tree.entries import KeyedMap


class Piece:
    """Values that were found in one go, one after the other, or none; read at `read_at`. Their
    texts are made together, when one is wanted."""

    def __init__(self, values: bytes, read_at: float, mtime_ns: int) -> None:
        self.values = values
        self.read_at = read_at
        self.mtime_ns = mtime_ns
        self._codec: Codec | None = None
        self._texts: list[bytes] = []

    @property
    def late(self) -> bool:
        """Whether they may have changed by now: who lists them takes its time."""
        return time.monotonic() - self.read_at > FRESH

    def texts(self, codec: Codec) -> Sequence[bytes]:
        """What files show of them."""
        if self._codec is not codec:
            self._codec, self._texts = codec, to_texts(codec, self.values)
        return self._texts


class FoundKeys(Alike):
    """Keys of a map, which is open as long as there are more of them, and their names; their values
    are those of `piece`, from number `at`."""

    def __init__(
        self,
        origin: KeyedMap,
        bpf_map: Map,
        names: Sequence[str],
        keys: Sequence[bytes],
        piece: Piece,
        at: int = 0,
    ) -> None:
        self.origin: KeyedMap = origin
        self.names = names
        self.keys = keys
        self._map = bpf_map
        self._piece = piece
        self._at = at

    def rest(self, done: int) -> FoundKeys | None:
        names, keys = self.names[done:], self.keys[done:]
        if not names:
            return None
        return FoundKeys(self.origin, self._map, names, keys, self._piece, self._at + done)

    def expire(self) -> None:
        self._piece.read_at = float("-inf")

    def stand_ins(self, most: int) -> list[StandIn]:
        keyed, piece = self.origin, self._piece
        codec = keyed.view.value
        usual = keyed.of_entries and codec.size == keyed.view.stride
        if not usual or not piece.values or piece.late:
            return []
        texts = piece.texts(codec)[self._at : self._at + most]
        return [
            StandIn(keyed, key, text, piece.mtime_ns, piece.read_at)
            for key, text in zip(self.keys, texts, strict=False)
        ]

    def first(self) -> Node:
        keyed, key, piece = self.origin, self.keys[0], self._piece
        node = keyed.node(key)
        if piece.values:
            stride = keyed.view.stride
            value = piece.values[self._at * stride : (self._at + 1) * stride]
            if piece.late:
                value = self._look(key)
            keyed.note(node, value, piece.mtime_ns)
        return node

    def _look(self, key: bytes) -> bytes:
        """The value of a key now. Raises what `gone` makes."""
        # A listing closes its map at its end, and may be asked for its last names once more.
        ended = self._map.fd < 0
        with self.origin.open() if ended else contextlib.nullcontext(self._map) as bpf_map:
            try:
                return self.origin.look(bpf_map, key)
            except FileNotFoundError:
                raise gone() from None
