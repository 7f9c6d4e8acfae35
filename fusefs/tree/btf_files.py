"""The files that the directory of a BTF object has, and the `btf` of a map."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from fusefs.bpf.btf import BtfError
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.credentials import Caller
from fusefs.bpf.object import Object
from fusefs.text.declarations import every_declaration
from fusefs.tree.files import ObjectFile
from fusefs.tree.map_view import Finder, Found
from fusefs.tree.node import Attributes, Handle, Node, Opening
from fusefs.tree.stream_files import StreamFile
from fusefs.tree.subject import Subject
from fusefs.tree.types_file import comment
from fusefs.tree.values import as_map

# The header of the kernel's types has this guard, which libbpf's headers look for: bpf_tracing.h
# has other names for registers then.
_KERNELS = "__VMLINUX_H__"
# The structs of the kernel are not where they were in another: a loader puts in where they are. The
# name of what turns that off is bpftool's. Only clang knows the attribute, and only for BPF.
_RELOCATED = (
    "#if defined(__clang__) && defined(__bpf__) && !defined(BPF_NO_PRESERVE_ACCESS_INDEX)\n"
    "#pragma clang attribute {}\n"
    "#endif\n\n"
)
_PUSH = "push (__attribute__((preserve_access_index)), apply_to = record)"


def btf_files(finder: Finder, found: Found) -> dict[str, Node]:
    """The files of a BTF object, by name."""
    subject = found.subject
    return {"btf": Blob(subject), "types.h": AllTypes(subject)}


class Blob(ObjectFile):
    """`btf`: what the kernel was given, byte by byte."""

    __slots__ = ()

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, "btf")

    def attributes(self) -> Attributes:
        attributes = self.basics(self.subject.status())
        with self.blob() as btf:
            attributes.size = btf.info.btf_size
        return attributes

    def blob(self) -> BtfObject:
        """The BTF object, open."""
        return as_btf(self.subject.open())

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        return BlobReading(self.blob())


class BlobOfMap(Blob):
    """A map's `btf`: all types that its loader gave the kernel, with which it can be made anew. It
    is root's, as BTF objects are: the kernel gives them to nobody else by their ids."""

    __slots__ = ()

    @property
    def roots(self) -> bool:
        return True

    def blob(self) -> BtfObject:
        with self.subject.open() as obj:
            return BtfObject.from_id(as_map(obj).info.btf_id)


class BlobReading(Handle):
    """An open blob. It never changes, and is had whole or not at all: once, when it is read."""

    def __init__(self, btf: BtfObject) -> None:
        self._btf = btf
        self._memory: mmap.mmap | None = None

    def read(self, offset: int, size: int) -> bytes | None:
        if self._memory is None:
            self._memory = self._btf.mapped()
        return self._memory[offset : offset + size]

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
        self._btf.close()


class AllTypes(StreamFile):
    """`types.h`: C declarations of all types. Those of the kernel's own are what others know as
    vmlinux.h; those of a module come with what they need of the kernel's. It is to be copied before
    it is included: compilers take a file whose size is 0 for an empty one."""

    __slots__ = ()

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, "types.h")

    def stream(self, obj: Object) -> Iterator[bytes]:
        return (piece.encode() for piece in _header(as_btf(obj)))


def _header(btf_object: BtfObject) -> Iterator[str]:
    """The text of a header, in pieces."""
    kernels = btf_object.is_kernel
    guard = _KERNELS if kernels else f"BPF_BTF_{btf_object.info.id}_TYPES_H"
    title = f"Types of btf {btf_object.info.id} {btf_object.name}"
    yield f"#ifndef {guard}\n#define {guard}\n\n{comment(title.rstrip())}\n\n"
    if kernels:
        yield _RELOCATED.format(_PUSH)
    try:
        yield from every_declaration(btf_object.parse(), btf_object.first())
    except (BtfError, PermissionError) as error:
        yield comment(f"The BTF cannot be read: {error}") + "\n"
    if kernels:
        yield "\n" + _RELOCATED.format("pop").rstrip() + "\n"
    yield "\n#endif\n"


def as_btf(obj: Object) -> BtfObject:
    """The object, which is one of BTF."""
    assert isinstance(obj, BtfObject)
    return obj
