"""A map of maps as a Python dictionary has it, and the same seen and changed through a mount."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, ClassVar, Self

from fusefs.bpf.map import Map, MapType
from support.maps import dump, make_map, u32
from support.model import LAG, NOREPLACE, ending, rename
from support.mounting import Mount

_MAX_ENTRIES = 4


class SlotTwins:
    """A map of maps, pinned under a name, and maps to be put into it; and a dictionary that should
    have the same."""

    keys: ClassVar[tuple[str, ...]] = tuple(map(str, range(6)))
    inner: ClassVar[int] = 3

    def __init__(self, kind: MapType, mount: Mount, name: str) -> None:
        self.operations = 0
        self._mount = mount
        self._names = [name, *(f"{name}inner{number}" for number in range(self.inner))]
        self._entries = mount.path / name / "entries"
        self._indexed = kind == MapType.ARRAY_OF_MAPS
        self._model: dict[str, int] = {}
        self._elsewhere = 0.0
        self._stack = ExitStack()
        inner = [make_map(MapType.ARRAY, max_entries=2) for _ in range(self.inner)]
        self._inner = [self._stack.enter_context(each) for each in inner]
        self._map = self._stack.enter_context(
            Map.create(
                kind, key_size=4, value_size=4, max_entries=_MAX_ENTRIES, inner=self._inner[0]
            )
        )
        for number, key in enumerate(self.keys[:2]):
            self._map.update(u32(int(key)), u32(self._inner[number].fd))
            self._model[key] = number
        for pinned, bpf_map in zip(self._names, [self._map, *self._inner], strict=True):
            mount.pin(pinned, bpf_map)
        if not self._indexed:
            (mount.path / name / "format").write_text("key: uint\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in self._names:
            with contextlib.suppress(FileNotFoundError):
                (self._mount.source / name).unlink()
        self._stack.close()

    def do(self, name: str, *arguments: Any) -> None:
        """One of the operations below."""
        operation: Callable[..., None] = getattr(self, name)
        operation(*arguments)
        self.operations += 1

    def _settle(self) -> None:
        time.sleep(max(self._elsewhere + LAG - time.monotonic(), 0))

    def _changed_elsewhere(self) -> None:
        self._elsewhere = time.monotonic()

    def _past_end(self, key: str) -> bool:
        return self._indexed and int(key) >= _MAX_ENTRIES

    def _full(self, key: str) -> bool:
        return key not in self._model and len(self._model) >= _MAX_ENTRIES

    def _refused(self, key: str) -> int:
        """The error of who sets a slot."""
        if self._past_end(key):
            return errno.EINVAL
        return errno.ENOSPC if self._full(key) else 0

    def _target(self, inner: int) -> str:
        return f"../../{self._names[1 + inner]}"

    # The operations.

    def link(self, key: str, inner: int) -> None:
        """`ln -s`."""
        self._settle()
        wanted = errno.EEXIST if key in self._model else self._refused(key)
        with ending(wanted):
            (self._entries / key).symlink_to(self._target(inner))
        if not wanted:
            self._model[key] = inner

    def replace(self, key: str, inner: int) -> None:
        """`ln -sfn`."""
        scratch = self._entries / ".new"
        scratch.symlink_to(self._target(inner))
        wanted = self._refused(key)
        with ending(wanted):
            scratch.rename(self._entries / key)
        if wanted:
            scratch.unlink()
        else:
            self._model[key] = inner

    def remove(self, key: str) -> None:
        with ending(0 if key in self._model else errno.ENOENT):
            (self._entries / key).unlink()
        self._model.pop(key, None)

    def rename(self, key: str, new: str, flags: int) -> None:
        self._settle()
        with ending(self._renamed(key, new, flags)):
            rename(self._entries / key, self._entries / new, flags)
        self._changed_elsewhere()

    def _renamed(self, key: str, new: str, flags: int) -> int:
        if key not in self._model:
            return errno.ENOENT
        if flags & NOREPLACE and new in self._model:
            return errno.EEXIST
        if key == new:
            return 0
        if self._past_end(new):
            return errno.EPERM
        if self._full(new):
            return errno.ENOSPC
        self._model[new] = self._model.pop(key)
        return 0

    def follow(self, key: str) -> None:
        """The link leads to the very map."""
        self._settle()
        if key not in self._model:
            with ending(errno.ENOENT):
                os.readlink(self._entries / key)
            return
        number = self._inner[self._model[key]].info.id
        assert os.readlink(self._entries / key) == f"../../.by-id/maps/{number}"
        assert f"\nid: {number}\n" in (self._entries / key / "info").read_text()

    def list(self) -> None:
        assert sorted(os.listdir(self._entries)) == sorted(self._model)

    def set_beside(self, key: str, inner: int) -> None:
        """Somebody else's bpf(2)."""
        if not self._refused(key):
            self._map.update(u32(int(key)), u32(self._inner[inner].fd))
            self._model[key] = inner
            self._changed_elsewhere()

    def delete_beside(self, key: str) -> None:
        """The same."""
        if key in self._model:
            self._map.delete(u32(int(key)))
            del self._model[key]
            self._changed_elsewhere()

    def compare(self) -> None:
        """All that there is, and as the kernel has it."""
        self.list()
        for key in self.keys:
            self.follow(key)
        found = {key: value for key, value in dump(self._map).items() if any(value)}
        ids = {u32(int(k)): u32(self._inner[i].info.id) for k, i in self._model.items()}
        assert found == ids
