"""BTF blobs in the kernel: loading one, and reading one back by its id."""

from __future__ import annotations

import ctypes
import functools
import mmap

from fusefs.bpf import syscall
from fusefs.bpf.btf import Btf, BtfError, kernel_btf
from fusefs.bpf.object import Object, buffer
from fusefs.bpf.syscall import Command

_NAME = 64  # bytes of a module's name, MODULE_NAME_LEN in linux/module.h
# A blob of more bytes is not read, for others wait meanwhile; the kernel's own is, once. The kernel
# takes 16 MiB (BTF_MAX_SIZE in kernel/bpf/btf.c), and large programs have a third of one.
MAX_SIZE = 1 << 21
KERNEL = "vmlinux"  # the name of the kernel's own, btf_parse_vmlinux in kernel/bpf/btf.c


class BtfInfo(ctypes.Structure):
    """`struct bpf_btf_info`."""

    _fields_ = (
        ("btf", ctypes.c_uint64),
        ("btf_size", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("name", ctypes.c_uint64),
        ("name_len", ctypes.c_uint32),
        ("kernel_btf", ctypes.c_uint32),
    )


class BtfObject(Object):
    """A BTF blob that the kernel holds."""

    kind = "btf"
    by_id = Command.BTF_GET_FD_BY_ID
    next_id = Command.BTF_GET_NEXT_ID

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        name = buffer(_NAME)
        self.info = self.fill(BtfInfo(name=ctypes.addressof(name), name_len=len(name)))
        self.name = name.value.decode("utf-8", "replace")

    @property
    def is_kernel(self) -> bool:
        """Whether it describes the kernel itself or one of its modules, whose `name` it has."""
        return bool(self.info.kernel_btf)

    @property
    def base(self) -> str:
        """The name of the BTF that it is split from; empty when it is whole."""
        return KERNEL if self.is_kernel and self.name != KERNEL else ""

    @classmethod
    def load(cls, blob: bytes) -> BtfObject:
        """Give `blob` to the kernel. Raises OSError with the end of the verifier's log."""
        data, log = ctypes.create_string_buffer(blob, len(blob)), buffer(65536)
        arguments = syscall.BtfLoadArguments(btf=ctypes.addressof(data), btf_size=len(blob))
        try:
            return cls(syscall.bpf(Command.BTF_LOAD, arguments))
        except OSError:
            arguments.log, arguments.log_size = ctypes.addressof(log), len(log)
            arguments.log_level = 1
            try:
                return cls(syscall.bpf(Command.BTF_LOAD, arguments))
            except OSError as error:
                why = log.value.decode("utf-8", "replace").strip().splitlines()[-1:]
                raise OSError(error.errno, f"{error.strerror}: {' '.join(why)}") from None

    def blob(self) -> bytes:
        """The blob, whole."""
        with self.mapped() as memory:
            return memory[:]

    def mapped(self) -> mmap.mmap:
        """The blob, in memory that is the system's again when it is closed. The kernel gives no
        part of it but the beginning (btf_get_info_by_fd in kernel/bpf/btf.c)."""
        size = self.info.btf_size
        memory = mmap.mmap(-1, size)
        start = ctypes.c_char.from_buffer(memory)
        try:
            self.fill(BtfInfo(btf=ctypes.addressof(start), btf_size=size))
        finally:
            del start  # as long as it is there, the memory cannot be closed
        return memory

    def parse(self) -> Btf:
        """Its types. A module's blob is split from the kernel's own. Raises BtfError, and
        PermissionError when the kernel's own is hidden."""
        kernel = kernel_btf() if self.is_kernel else None
        if kernel and self.name == KERNEL:
            return kernel
        if self.base and not kernel:
            raise BtfError("the kernel's own types, which it continues, are not to be had")
        if not self.is_kernel and self.info.btf_size > MAX_SIZE:
            raise BtfError(f"it has {self.info.btf_size} bytes, more than {MAX_SIZE}")
        return Btf.parse(self.blob(), kernel)

    def first(self) -> int:
        """The lowest id of a type of its own. Raises as `parse` does."""
        kernel = kernel_btf() if self.base else None
        return len(kernel) if kernel else 1

    def count(self) -> int:
        """The number of its own types. Raises as `parse` does, and OSError."""
        return _count(self.info.id)


@functools.lru_cache(1024)
def _count(btf_id: int) -> int:
    """Remembered, since an id is given to no other before two thousand million have been."""
    with BtfObject.from_id(btf_id) as btf_object:
        return len(btf_object.parse()) - btf_object.first()
