"""Local storages, and the live things that are keys in them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from fusefs.bpf.live_keys import Cgroups, Inodes, LiveKeys, Sockets, Tasks
from fusefs.bpf.map import Map, MapType
from support.maps import NO_PREALLOC, types, u64
from support.mounting import Mount

# Has as many threads as its argument says, and says so; they end with its input.
_CROWD = """
import sys, threading
threading.stack_size(1 << 16)
end = threading.Event()
for _ in range(int(sys.argv[1]) - 1):
    threading.Thread(target=end.wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def storage(kind: MapType, value: str = "u64") -> Map:
    """An empty local storage; `value` names one of `types()`."""
    known = types()
    return Map.create(
        kind,
        key_size=4,
        value_size=known.sizes[value],
        max_entries=0,
        name="sample",
        flags=NO_PREALLOC,
        btf=known.btf,
        key_type=known.ids["s32"],
        value_type=known.ids[value],
    )


# What is a key in each type.
THINGS: dict[MapType, LiveKeys] = {
    MapType.TASK_STORAGE: Tasks(),
    MapType.CGRP_STORAGE: Cgroups(),
    MapType.INODE_STORAGE: Inodes(),
    MapType.SK_STORAGE: Sockets(),
}


def put(sample: Map, name: str, number: int) -> None:
    """Give a thing a value, with bpf(2)."""
    with THINGS[MapType(sample.info.type)].open(name, None) as live:
        sample.update(live.key, u64(number))


def value_of(sample: Map, name: str) -> int | None:
    """The value of a thing, as bpf(2) has it."""
    with THINGS[MapType(sample.info.type)].open(name, None) as live:
        try:
            return int.from_bytes(sample.lookup(live.key), "little")
        except FileNotFoundError:
            return None


def refused(mounted: Mount, command: str, error: str, reason: str = "") -> None:
    """A command is refused, and the log says why."""
    result = mounted.sh(f"cd sample/entries && {command}")
    assert (result.code, result.stderr.endswith(error)) == (1, True), result
    assert reason in mounted.error_log("sample"), result


class Thread:
    """A thread of this process that waits until it is told to end."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._end.wait, daemon=True)
        self._thread.start()
        assert self._thread.native_id
        self.id = self._thread.native_id

    def end(self) -> None:
        """End it, and wait until it is no more."""
        self._end.set()
        self._thread.join()
        while os.path.exists(f"/proc/self/task/{self.id}"):
            os.sched_yield()


@contextlib.contextmanager
def thread() -> Iterator[Thread]:
    """A thread that leads no process."""
    made = Thread()
    try:
        yield made
    finally:
        made.end()


@contextlib.contextmanager
def process(
    command: Sequence[str | Path], keep: Sequence[int] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes for its input and output; it inherits the descriptors in `keep`."""
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=keep
    ) as made:
        try:
            yield made
        finally:
            made.kill()


@contextlib.contextmanager
def script(text: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a script of Python, once it has printed a line."""
    with process([sys.executable, "-c", text, *arguments]) as made:
        assert made.stdout and made.stdout.readline()
        yield made


def crowd(threads: int) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A process of so many threads."""
    return script(_CROWD, str(threads))


def descriptors(pid: int) -> int:
    """How many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))
