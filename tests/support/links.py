"""Links of every type: programs that libbpf loads, attached by bpf(2)."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import functools
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import pytest

from fusefs.bpf import libc, syscall
from fusefs.bpf.btf import Kind, kernel_btf
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map
from fusefs.bpf.program import Program
from support.cgroups import cgroup
from support.network import compile_program

T = TypeVar("T")

_objects = tempfile.TemporaryDirectory(prefix="bpf-fusefs-test-")  # removed at the end of all tests


class Attach(enum.IntEnum):
    """`enum bpf_attach_type`, as far as it is used here."""

    NONE = 0
    CGROUP_INET_EGRESS = 1
    TRACE_ITER = 28
    SK_LOOKUP = 36
    XDP = 37
    SK_SKB_VERDICT = 38
    PERF_EVENT = 41
    TRACE_KPROBE_MULTI = 42
    STRUCT_OPS = 44
    NETFILTER = 45
    TCX_INGRESS = 46
    TRACE_UPROBE_MULTI = 48
    NETKIT_PRIMARY = 54


class _Command(enum.IntEnum):
    """Calls that the file system does not need."""

    RAW_TRACEPOINT_OPEN = 17
    LINK_CREATE = 28


class _LinkCreateArguments(ctypes.Structure):
    """BPF_LINK_CREATE: what all types have, and then a union by type."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("by_type", ctypes.c_uint8 * 48),
    )


class _RawTracepointArguments(ctypes.Structure):
    """BPF_RAW_TRACEPOINT_OPEN."""

    _fields_ = (
        ("name", ctypes.c_uint64),
        ("prog_fd", ctypes.c_uint32),
        ("_padding", ctypes.c_uint32),
        ("cookie", ctypes.c_uint64),
    )


def _call(command: _Command, arguments: ctypes.Structure) -> Link:
    return Link(syscall.bpf(cast(syscall.Command, command), arguments))


def create(
    program: Program | Map, target: int, attach: Attach, by_type: bytes = b"", flags: int = 0
) -> Link:
    """A link of a program (or of a struct_ops map) to `target`, a descriptor or an interface."""
    arguments = _LinkCreateArguments(program.fd, target, attach, flags)
    ctypes.memmove(ctypes.addressof(arguments) + 16, by_type, len(by_type))
    return _call(_Command.LINK_CREATE, arguments)


def raw_tracepoint(program: Program, name: str, cookie: int) -> Link:
    """A link to a raw tracepoint."""
    text = ctypes.create_string_buffer(name.encode())
    arguments = _RawTracepointArguments(ctypes.addressof(text), program.fd, 0, cookie)
    return _call(_Command.RAW_TRACEPOINT_OPEN, arguments)


def addresses(numbers: Sequence[int]) -> ctypes.Array[ctypes.c_uint64]:
    """An array of 64-bit numbers, for the kernel to read."""
    return (ctypes.c_uint64 * len(numbers))(*numbers)


def uprobes(
    program: Program,
    path: str,
    offsets: Sequence[int],
    cookies: Sequence[int],
    *,
    returns: bool = False,
) -> Link:
    """A link to places in a file, for this process."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    at, with_each = addresses(offsets), addresses(cookies)
    asked = struct.pack(
        "=QQQQIII4x", ctypes.addressof(text), ctypes.addressof(at), 0,
        ctypes.addressof(with_each), len(offsets), int(returns), os.getpid(),
    )  # fmt: skip
    return create(program, 0, Attach.TRACE_UPROBE_MULTI, asked)


def kprobes(program: Program, functions: Sequence[str], cookies: Sequence[int]) -> Link:
    """A link to functions of the kernel. Skips the test where there are no kprobes."""
    texts = [ctypes.create_string_buffer(name.encode()) for name in functions]
    names, with_each = addresses([ctypes.addressof(text) for text in texts]), addresses(cookies)
    asked = struct.pack(
        "=IIQQQ", 0, len(functions), ctypes.addressof(names), 0, ctypes.addressof(with_each)
    )
    try:
        return create(program, 0, Attach.TRACE_KPROBE_MULTI, asked)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("this kernel has no kprobes of many functions (CONFIG_FPROBE)")
        raise


def iterator(program: Program, about: bytes = b"") -> Link:
    """An iterator; `about` is a `union bpf_iter_link_info`."""
    room = ctypes.create_string_buffer(about, len(about) or 1)
    asked = struct.pack("=QI", ctypes.addressof(room), len(about)) if about else b""
    return create(program, 0, Attach.TRACE_ITER, asked)


def over_map(program: Program, bpf_map: Map) -> Link:
    """An iterator over the elements of a map."""
    return iterator(program, struct.pack("=I", bpf_map.fd))


_PERF_EVENT_OPEN = {"x86_64": 298}  # __NR_perf_event_open; elsewhere mostly 241
_PERF_ATTR_SIZE = 112  # PERF_ATTR_SIZE_VER5


def perf_event(
    kind: int, config: int, place: int = 0, offset: int = 0, *, pid: int = 0, cpu: int = -1
) -> int:
    """A descriptor of a perf event of this process, or of all on a CPU. See perf_event_open(2)."""
    attributes = ctypes.create_string_buffer(_PERF_ATTR_SIZE)
    struct.pack_into("=IIQ", attributes, 0, kind, _PERF_ATTR_SIZE, config)
    struct.pack_into("=QQ", attributes, 56, place, offset)  # config1, config2
    number = _PERF_EVENT_OPEN.get(os.uname().machine, 241)
    return libc.call("syscall", number, ctypes.byref(attributes), pid, cpu, -1, 0)


def on_event(program: Program, event: int, cookie: int) -> Link:
    """A link to a perf event, whose descriptor is closed."""
    try:
        return create(program, event, Attach.PERF_EVENT, struct.pack("=Q", cookie))
    finally:
        os.close(event)


def probe_event(kind: str, where: str, offset: int, *, returns: bool) -> int:
    """An event of a `kprobe` or `uprobe`, at an offset in a function or a file. Skips the test
    where the kernel has none."""
    source = Path(f"/sys/bus/event_source/devices/{kind}/type")
    if not source.exists():
        pytest.skip(f"this kernel has no {kind}s")
    text = ctypes.create_string_buffer(where.encode())
    place = ctypes.addressof(text)
    return perf_event(int(source.read_text()), int(returns), place, offset)


# What each program is, where its section does not say it: its type, and what it attaches to.
Kinds = Mapping[str, tuple[int, Attach]]
_SOME: Kinds = {
    "on_hook": (32, Attach.NETFILTER),
    "on_probes": (2, Attach.TRACE_UPROBE_MULTI),
}


@functools.cache
def _libbpf() -> ctypes.CDLL:
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    for name in (
        "object__open_file", "object__find_program_by_name", "object__find_map_by_name",
        "object__next_program", "map__attach_struct_ops",
    ):  # fmt: skip
        getattr(library, f"bpf_{name}").restype = ctypes.c_void_p
    library.bpf_program__section_name.restype = ctypes.c_char_p
    library.libbpf_set_print(None)
    return library


@functools.cache
def _compiled(name: str) -> Path:
    return compile_program(name, Path(_objects.name))


_TRACING = 26  # BPF_PROG_TYPE_TRACING
_NOTHING = bytes.fromhex("b7000000000000009500000000000000")  # r0 = 0; exit


@functools.cache
def _refused_section() -> bytes:
    """The section of the programs that this kernel refuses, of root too; empty when there are none.
    Some hardened hosts have no iterators over the elements of maps."""
    btf = kernel_btf()
    function = btf.find("bpf_iter_bpf_map_elem", Kind.FUNC) if btf else None
    try:
        if function:
            Program.load(
                _TRACING, _NOTHING, attach_type=Attach.TRACE_ITER, attach_btf_id=function
            ).close()
    except PermissionError:
        return b"iter/bpf_map_elem"
    return b""


def _section_of(program: ctypes.c_void_p) -> bytes:
    """The section that a program of libbpf's comes from."""
    name: bytes = _libbpf().bpf_program__section_name(program)
    return name


class Loaded:
    """The programs and maps of one of the files beside the tests. `target` is a program, and the
    name of its function, that one of them, `tracer`, is for."""

    def __init__(
        self,
        name: str | Path,
        kinds: Kinds = _SOME,
        tracer: str = "",
        target: tuple[Program, str] | None = None,
        flags: Mapping[str, int] | None = None,
    ) -> None:
        library = _libbpf()
        path = os.fsencode(name if isinstance(name, Path) else _compiled(name))
        self._object = ctypes.c_void_p(library.bpf_object__open_file(path, None))
        assert self._object, path
        for program, (kind, attach) in kinds.items():
            if found := self.find("program", program):
                library.bpf_program__set_type(found, kind)
                library.bpf_program__set_expected_attach_type(found, int(attach))
        program_after = library.bpf_object__next_program
        found = program_after(self._object, None)
        while found:
            one = ctypes.c_void_p(found)
            if _section_of(one) == _refused_section():
                library.bpf_program__set_autoload(one, False)
            found = program_after(self._object, one)
        if tracer:
            library.bpf_program__set_autoload(self.find("program", tracer), True)
        if target:
            traced, function = target
            library.bpf_program__set_attach_target(
                self.find("program", tracer), traced.fd, function.encode()
            )
        for bpf_map, of_map in (flags or {}).items():
            library.bpf_map__set_map_flags(self.find("map", bpf_map), of_map)
        failed = library.bpf_object__load(self._object)
        if failed:
            library.bpf_object__close(self._object)
            raise OSError(-failed, os.strerror(-failed), name)

    def find(self, what: str, name: str) -> ctypes.c_void_p:
        """libbpf's own pointer to a program or map; null when there is none of this name."""
        find = getattr(_libbpf(), f"bpf_object__find_{what}_by_name")
        found = find(self._object, name.encode())
        return ctypes.c_void_p(found)

    def program(self, name: str) -> Program:
        """A program, by its name. Skips the test where the kernel refuses its kind."""
        found = self.find("program", name)
        if _refused_section() and _section_of(found) == _refused_section():
            pytest.skip(f"this kernel refuses programs of {_refused_section().decode()}")
        return Program(os.dup(_libbpf().bpf_program__fd(found)))

    def map(self, name: str) -> Map:
        """A map, by its name."""
        return Map(os.dup(_libbpf().bpf_map__fd(self.find("map", name))))

    def close(self) -> None:
        """Unload what nobody else has."""
        _libbpf().bpf_object__close(self._object)


@contextlib.contextmanager
def loaded(name: str = "links", kinds: Kinds = _SOME) -> Iterator[Loaded]:
    """The programs of a file."""
    programs = Loaded(name, kinds)
    try:
        yield programs
    finally:
        programs.close()


_CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def on_cgroup(programs: Loaded) -> Iterator[Link]:
    """A link of `on_egress` to a cgroup of its own, which is not pinned."""
    with cgroup() as path, attached(programs, path) as link:
        yield link


@contextlib.contextmanager
def attached(programs: Loaded, path: Path) -> Iterator[Link]:
    """A link of `on_egress` to a cgroup."""
    with programs.program("on_egress") as program:
        fd = os.open(path, os.O_RDONLY)
        try:
            link = create(program, fd, Attach.CGROUP_INET_EGRESS)
        finally:
            os.close(fd)
        with link:
            yield link


def in_namespace(name: str, work: Callable[[], T]) -> T:
    """What `work` gives in a network namespace, in a thread of its own."""
    results: list[T] = []

    def run() -> None:
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            libc.call("setns", fd, _CLONE_NEWNET)
        finally:
            os.close(fd)
        results.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results, "it failed, see above"
    return results[0]


@contextlib.contextmanager
def struct_ops_link() -> Iterator[tuple[Map, Link]]:
    """A struct_ops map whose registration is a link, and that link."""
    path = Path(_objects.name) / "registered.o"
    # A name that neither others who run these tests use, nor the sample of a struct_ops map.
    name = b"fusefl_%04d" % (os.getpid() % 10_000)
    path.write_bytes(_compiled("congestion").read_bytes().replace(b"fusefs_test\0", name + b"\0"))
    opened = Loaded(path, {}, flags={"congestion": 1 << 13})  # BPF_F_LINK
    try:
        assert _libbpf().bpf_map__attach_struct_ops(opened.find("map", "congestion"))
        with opened.map("congestion") as made, create(made, 0, Attach.STRUCT_OPS) as link:
            yield made, link
    finally:
        opened.close()
