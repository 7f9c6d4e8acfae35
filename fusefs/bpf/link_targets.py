"""What links and programs are attached to, by the numbers that the kernel tells: cgroups, network
namespaces, and functions."""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from fusefs.bpf import libc
from fusefs.bpf.btf import Btf, BtfError, Composite, Function
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cgroups import hierarchy
from fusefs.bpf.program import Program
from fusefs.bpf.troubles import raise_own

_NAMESPACES = Path("/run/netns")  # where ip-netns(8) has them
_EVENT_SOURCES = Path("/sys/bus/event_source/devices")
_KERNFS = 0xFE  # FILEID_KERNFS, linux/exportfs.h


class _Handle(ctypes.Structure):
    """`struct file_handle` of a cgroup: its id. See open_by_handle_at(2)."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint32),
        ("handle_type", ctypes.c_int32),
        ("cgroup_id", ctypes.c_uint64),
    )


def cgroup_path(cgroup_id: int) -> str | None:
    """The path of a cgroup below the root of the cgroup2 hierarchy, which is "/"; None when it is
    gone, or the hierarchy is not mounted here."""
    root = hierarchy()
    if root is None:
        return None
    handle = _Handle(8, _KERNFS, cgroup_id)
    try:
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = os.O_PATH | os.O_CLOEXEC
            cgroup = libc.call("open_by_handle_at", top, ctypes.byref(handle), flags)
        finally:
            os.close(top)
    except OSError as error:
        raise_own(error)
        return None
    try:
        path = os.readlink(f"/proc/self/fd/{cgroup}")
    finally:
        os.close(cgroup)
    below = path == root or path.startswith(f"{root.rstrip('/')}/")
    return (path[len(root.rstrip("/")) :] or "/") if below else None


def namespace_name(inode: int) -> str | None:
    """The name that ip-netns(8) has for the network namespace with this inode number, or None."""
    device = os.stat("/proc/self/ns/net").st_dev
    for entry in _entries(_NAMESPACES):
        with contextlib.suppress(FileNotFoundError):  # it was just removed
            status = entry.stat()
            if (status.st_dev, status.st_ino) == (device, inode):
                return entry.name
    return None


def perf_device(number: int) -> str | None:
    """The device that has this type of performance events, which perf_event_open(2) takes from
    /sys/bus/event_source/devices; None for none."""
    for device in _entries(_EVENT_SOURCES):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it has just gone
            if (device / "type").read_text().strip() == str(number):
                return device.name
    return None


def _entries(directory: Path) -> list[Path]:
    """What is in a directory, by name; nothing when there is none."""
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


@dataclass(frozen=True, slots=True)
class Traced:
    """A function that a program is attached to: its name, and the kernel's module that it is in
    (`vmlinux` for the kernel itself), or the id of the program that it is of."""

    name: str
    module: str = ""
    prog_id: int = 0


def traced(prog_id: int, object_id: int, type_id: int) -> Traced | None:
    """The function that the program `prog_id` is attached to by a tracing link; None where that is
    not sure.

    The kernel gives an object's id, which is a BTF's for its own functions and a program's for
    those of programs (bpf_trampoline_unpack_key in include/linux/bpf_verifier.h), and the type's in
    the BTF. Which of them it is, the tracing program tells: it has no BTF to attach to when it was
    loaded for another program.
    """
    try:
        with Program.from_id(prog_id) as program:
            of_kernel = program.info.attach_btf_obj_id == object_id
        if of_kernel:
            with BtfObject.from_id(object_id) as btf:
                name = _function(btf.parse(), type_id)
                return Traced(name, module=btf.name) if name and btf.is_kernel else None
        with Program.from_id(object_id) as target, BtfObject.from_id(target.info.btf_id) as btf:
            name = _function(btf.parse(), type_id)
            return Traced(name, prog_id=object_id) if name else None
    except (OSError, BtfError) as error:
        raise_own(error)
        return None


def attach_name(program: Program) -> str:
    """The function of the kernel, or the struct of functions, that a program was loaded for; empty
    where there is none, or it is not known."""
    info = program.info
    if not info.attach_btf_obj_id or not info.attach_btf_id:
        return ""
    try:
        with BtfObject.from_id(info.attach_btf_obj_id) as btf:
            found = btf.parse().type(info.attach_btf_id)
    except (OSError, BtfError) as error:
        raise_own(error)
        return ""
    return found.name if isinstance(found, Function | Composite) else ""


def _function(btf: Btf, type_id: int) -> str:
    found = btf.type(type_id)
    return found.name if isinstance(found, Function) else ""
