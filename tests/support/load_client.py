"""One of many who use maps that a program changes all the time: MAPS WORKER SECONDS.

It does all sorts of things with maps as load.bpf.c has them, whose values tell whether they are
whole. Some keys are its own: of these it knows what must be there. It prints what it did, as JSON:
of each kind of operation how often, and the longest in seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

# See load.bpf.c.
STAYING, KEYS, WORDS = 32, 64, 6
COVERING = 0xFFFF
CHECKED = ("hash", "lru_hash", "lpm_trie", "locked_hash", "locked_array")
COUNTED = ("percpu_hash", "percpu_array")
OWN = 8  # keys that each has
LONGEST = 30  # seconds that an operation may take
_64 = (1 << 64) - 1


def value_of(key: int, number: int) -> dict[str, Any]:
    """The value of a key with this number."""
    return {
        "number": number,
        "words": [number * (2 * word + 3) & _64 for word in range(WORDS)],
        "checksum": (key << 48 ^ number * 7) & _64,
    }


def is_whole(key: int, value: dict[str, Any]) -> bool:
    """Whether a value is one of its key's."""
    return value == value_of(key, value["number"])


def name_of(map_name: str, key: int) -> str:
    """The file name of a key."""
    if map_name != "lpm_trie":
        return str(key)
    return "10.0.0.0_8" if key == COVERING else f"10.{key >> 8}.{key & 255}.0_24"


def key_of(name: object) -> int:
    """The key of a file name, or of what is in a line."""
    text = str(name).replace("/", "_")
    if "_" not in text:
        return int(text)
    parts = text.partition("_")[0].split(".")
    return COVERING if text == "10.0.0.0_8" else int(parts[1]) << 8 | int(parts[2])


class Map:
    """A map, and what is known of the keys that are one's own."""

    def __init__(self, path: Path, worker: int) -> None:
        self.name = path.name
        self.path = path
        self.entries = path / "entries"
        self.fixed = self.name.endswith("array")
        # Those of an array are all there, so that of others it can be said that they are not.
        self.changing = () if self.name.startswith("locked") else range(STAYING, KEYS)
        self.own = range(KEYS + worker * OWN, KEYS + (worker + 1) * OWN)
        self.known: dict[int, dict[str, Any] | None] = {}
        for key in self.own:
            if self.fixed:
                self.set(key, 1)
            else:
                self.file(key).unlink(missing_ok=True)  # that of one before
                self.known[key] = None

    def file(self, key: int) -> Path:
        return self.entries / name_of(self.name, key)

    def read(self, key: int) -> dict[str, Any] | None:
        """What is there."""
        try:
            value: dict[str, Any] = json.loads(self.file(key).read_text())
        except FileNotFoundError:
            return None
        return value

    def set(self, key: int, number: int) -> None:
        self.file(key).write_text(json.dumps(value_of(key, number)) + "\n")
        self.known[key] = value_of(key, number)

    def check_own(self, found: dict[int, dict[str, Any]]) -> None:
        """What was found is what was committed last, of each key that is one's own."""
        for key in self.own:
            assert found.get(key) == self.known[key], (self.name, key, self.known[key])


class Client:
    """One who does something at random, again and again."""

    def __init__(self, maps: Path, worker: int) -> None:
        self.random = random.Random(worker)
        self.checked = [Map(maps / name, worker) for name in CHECKED]
        self.counted = [maps / name for name in COUNTED]
        self.counts: dict[Path, list[int]] = {}
        self.number = 1
        self.done: defaultdict[str, int] = defaultdict(int)
        self.longest: defaultdict[str, float] = defaultdict(float)

    def work(self, seconds: float) -> None:
        operations: list[Callable[[Map], None]] = [
            *[self.read_staying] * 6, *[self.read_changing] * 4, *[self.read_own] * 4,
            *[self.write] * 6, *[self.create] * 3, *[self.delete] * 3, *[self.save] * 2,
            self.rename, self.refused, self.list, self.dump, self.write_lines, self.stat,
            *[self.count] * 2,
        ]  # fmt: skip
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            operation, where = self.random.choice(operations), self.random.choice(self.checked)
            signal.alarm(LONGEST)
            start = time.monotonic()
            try:
                operation(where)
            except BaseException:
                print(f"{operation.__name__} {where.name}", file=sys.stderr)
                raise
            took = time.monotonic() - start
            signal.alarm(0)
            name = operation.__name__
            self.done[name] += 1
            self.longest[name] = max(self.longest[name], took)

    def _next(self) -> int:
        self.number = self.number * 6364136223846793005 + 1442695040888963407 & _64
        return self.number

    def _own(self, where: Map, *, there: bool) -> int | None:
        """A key of one's own that is there, or is not; None when none is so."""
        keys = [key for key in where.own if (where.known[key] is not None) == there]
        return self.random.choice(keys) if keys else None

    # The operations.

    def read_staying(self, where: Map) -> None:
        key = self.random.randrange(STAYING)
        value = where.read(key)
        assert value is not None, key
        assert is_whole(key, value), (key, value)

    def read_changing(self, where: Map) -> None:
        if where.changing:
            key = self.random.choice(where.changing)
            value = where.read(key)
            assert value is None or is_whole(key, value), (key, value)

    def read_own(self, where: Map) -> None:
        key = self.random.choice(where.own)
        assert where.read(key) == where.known[key], (key, where.known[key])

    def write(self, where: Map) -> None:
        key = self.random.choice(where.own)
        where.set(key, self._next())
        assert where.read(key) == where.known[key], (key, where.known[key])

    def create(self, where: Map) -> None:
        if (key := self._own(where, there=False)) is None:
            return
        value = value_of(key, self._next())
        with where.file(key).open("x") as file:
            file.write(json.dumps(value))
        where.known[key] = value
        assert where.read(key) == value, (key, value)

    def delete(self, where: Map) -> None:
        if where.fixed or (key := self._own(where, there=True)) is None:
            return
        where.file(key).unlink()
        where.known[key] = None
        assert where.read(key) is None, key

    def save(self, where: Map) -> None:
        key = self.random.choice(where.own)
        value = value_of(key, self._next())
        scratch = where.entries / f".{key}.new"
        scratch.write_text(json.dumps(value, indent=1))
        scratch.rename(where.file(key))
        where.known[key] = value
        assert where.read(key) == value, (key, value)

    def rename(self, where: Map) -> None:
        """To a key for which the value is wrong; then it is set right."""
        old, new = self._own(where, there=True), self._own(where, there=False)
        if old is None or new is None:
            return
        value = where.known[old]
        where.file(old).rename(where.file(new))
        where.known[old] = None
        assert where.read(new) == value, (old, new, value)
        where.set(new, self._next())

    def refused(self, where: Map) -> None:
        key = self.random.choice(where.own)
        try:
            where.file(key).write_text('{"number": -1}\n')
        except OSError as error:
            assert error.errno == 22, error
        else:
            raise AssertionError("it was taken")
        assert where.read(key) == where.known[key], (key, where.known[key])

    def stat(self, where: Map) -> None:
        os.stat(where.file(self.random.randrange(STAYING)))

    def list(self, where: Map) -> None:
        names = os.listdir(where.entries)
        keys = {key_of(name) for name in names if not name.startswith(".")}
        assert len(names) == len(set(names))
        assert keys >= set(range(STAYING)), set(range(STAYING)) - keys
        for key in where.own:
            assert (key in keys) == (where.known[key] is not None), key

    def dump(self, where: Map) -> None:
        found: dict[int, dict[str, Any]] = {}
        for line in (where.path / "entries.jsonl").open():
            entry = json.loads(line)
            key = key_of(entry["key"])
            assert key not in found, key
            found[key] = entry["value"]
            if key < KEYS and (key < STAYING or not where.fixed):
                assert is_whole(key, entry["value"]), (key, entry["value"])
        assert found.keys() >= set(range(STAYING)), set(range(STAYING)) - found.keys()
        where.check_own(found)

    def write_lines(self, where: Map) -> None:
        keys = self.random.sample(where.own, 4)
        values = {key: value_of(key, self._next()) for key in keys}
        texts = [
            json.dumps({"key": name_of(where.name, key).replace("_", "/"), "value": value})
            if where.name == "lpm_trie"
            else json.dumps({"key": key, "value": value})
            for key, value in values.items()
        ]
        (where.path / "entries.jsonl").write_text("\n".join(texts))
        where.known |= values
        for key in keys:
            assert where.read(key) == values[key], (key, values[key])

    def count(self, _where: Map) -> None:
        """What each CPU has counted never goes back."""
        file = self.random.choice(self.counted) / f"entries/{self.random.randrange(STAYING)}"
        counts: list[int] = json.loads(file.read_text())
        before = self.counts.get(file, counts)
        assert all(old <= new for old, new in zip(before, counts, strict=True)), (before, counts)
        self.counts[file] = counts


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"it takes longer than {LONGEST} s")


def main(maps: Path, worker: int, seconds: float) -> None:
    """Work, and tell."""
    signal.signal(signal.SIGALRM, _too_long)
    client = Client(maps, worker)
    client.work(seconds)
    print(json.dumps({"done": client.done, "longest": client.longest}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
