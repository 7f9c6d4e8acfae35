"""What maps, programs, links and BTF have in common: a descriptor, an id, an info call."""

from __future__ import annotations

import ctypes
import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from fusefs.bpf import syscall
from fusefs.bpf.syscall import Command

Info = TypeVar("Info", bound=ctypes.Structure)

# Lines of fdinfo that every descriptor has (proc_pid_fdinfo(5)): they tell about our descriptor.
_OF_ANY_DESCRIPTOR = frozenset({"pos", "flags", "mnt_id", "ino"})

# Where the kernel would write arrays to, if it were asked to, and what is kept as bytes.
_NO_FIELDS = frozenset(
    {"hash", "hash_size", "jited_prog_insns", "xlated_prog_insns", "map_ids", "jited_ksyms",
     "jited_func_lens", "func_info", "line_info", "jited_line_info", "prog_tags",
     "func_info_rec_size", "line_info_rec_size", "jited_line_info_rec_size", "by_type"}
)  # fmt: skip


class Closing(ABC):
    """What is closed at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Object(Closing):
    """An open BPF object. It stays in the kernel at least as long as this is open.

    A context manager; closed at the latest when nothing refers to it any more, as Python's own
    files are.
    """

    kind: ClassVar[str]
    by_id: ClassVar[Command]
    next_id: ClassVar[Command]
    info: ctypes.Structure

    def __init__(self, fd: int) -> None:
        """Takes over the descriptor `fd`."""
        self.fd = fd
        self._filled = 0  # how many bytes of `info` the kernel knows

    def maker(self) -> Callable[[int], Self]:
        """What makes such an object of another descriptor of the same thing: it asks the kernel
        for less than would be asked for one of which nothing is known."""
        return type(self)

    @classmethod
    def from_id(cls, object_id: int) -> Self:
        """Open the object with this id. Raises OSError: ENOENT when there is none."""
        try:
            return cls(syscall.bpf(cls.by_id, syscall.IdArguments(id=object_id)))
        except BlockingIOError:  # a link that is not yet attached (bpf_link_by_id)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    @classmethod
    def ids(cls) -> Iterator[int]:
        """The ids of all that the kernel has, in order; those that come meanwhile may be missed."""
        last = cls.id_after(0)
        while last:
            yield last
            last = cls.id_after(last)

    @classmethod
    def id_after(cls, last: int) -> int | None:
        """The lowest id above `last` that the kernel has; None when there is none. What is made
        later has a higher id, until they begin anew after two thousand million."""
        arguments = syscall.IdArguments(id=last)
        try:
            syscall.bpf(cls.next_id, arguments)
        except FileNotFoundError:
            return None
        found: int = arguments.next_id
        return found

    def close(self) -> None:
        """Give the descriptor back; again is no error."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def fill(self, info: Info) -> Info:
        """Have the kernel fill `info`; what it does not know stays as it is.

        Arrays are given as a pointer and a length in `info`. Raises OSError.
        """
        # A kernel older than the structure refuses bytes beyond its own only when they are set.
        arguments = syscall.InfoArguments(
            bpf_fd=self.fd, info_len=ctypes.sizeof(info), info=ctypes.addressof(info)
        )
        syscall.bpf(Command.OBJ_GET_INFO_BY_FD, arguments)
        self._filled = arguments.info_len
        return info

    def fields(self) -> dict[str, int | str]:
        """The numbers and names of the info call, by the kernel's names; bytes in hexadecimal. What
        the kernel is too old to know is not among them."""
        fields: dict[str, int | str] = {}
        for name, *_ in self.info._fields_:
            value = getattr(self.info, name)
            known = getattr(type(self.info), name).offset < self._filled
            if name.startswith("_") or name in _NO_FIELDS or not known:
                continue
            if isinstance(value, ctypes.Array):
                fields[name] = bytes(value).hex()
            elif isinstance(value, bytes):
                fields[name] = value.decode("utf-8", "replace")
            else:
                fields[name] = value
        return fields

    def fdinfo(self) -> dict[str, str]:
        """What /proc/self/fdinfo tells of the object, in its order."""
        # Names of files are among it, which may be any bytes.
        text = Path(f"/proc/self/fdinfo/{self.fd}").read_bytes().decode("utf-8", "replace")
        pairs = (line.partition(":") for line in text.split("\n") if line)
        return {
            name.strip(): value.strip()
            for name, _, value in pairs
            if name.strip() not in _OF_ANY_DESCRIPTOR
        }


def buffer(size: int) -> ctypes.Array[ctypes.c_char]:
    """Zeroed memory for the kernel to read or write."""
    return ctypes.create_string_buffer(size) if size else ctypes.create_string_buffer(1)
