"""BTF blobs in the kernel: loading one, and reading one back by its id."""

from __future__ import annotations

import ctypes

from fusefs.bpf import syscall
from fusefs.bpf.btf import Btf, kernel_btf
from fusefs.bpf.object import Object, buffer
from fusefs.bpf.syscall import Command

_NAME = 64  # bytes of a module's name, MODULE_NAME_LEN in linux/module.h


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
        size = self.info.btf_size
        data = buffer(size)
        self.fill(BtfInfo(btf=ctypes.addressof(data), btf_size=size))
        return data.raw[:size]

    def parse(self) -> Btf:
        """Its types. A module's blob is split from the kernel's own. Raises BtfError."""
        kernel = kernel_btf() if self.is_kernel else None
        if kernel and self.name == "vmlinux":
            return kernel
        return Btf.parse(self.blob(), kernel)
