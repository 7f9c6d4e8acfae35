"""Programs: what the kernel tells of them, their code, and running them."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from fusefs.bpf import names, syscall
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.object import Object, buffer
from fusefs.bpf.syscall import Command


class ProgramInfo(ctypes.Structure):
    """`struct bpf_prog_info`; the pointers to arrays are left 0 unless they are asked for."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("gpl_compatible", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("nr_jited_ksyms", ctypes.c_uint32),
        ("nr_jited_func_lens", ctypes.c_uint32),
        ("jited_ksyms", ctypes.c_uint64),
        ("jited_func_lens", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", ctypes.c_uint32),
        ("nr_line_info", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("jited_line_info", ctypes.c_uint64),
        ("nr_jited_line_info", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("jited_line_info_rec_size", ctypes.c_uint32),
        ("nr_prog_tags", ctypes.c_uint32),
        ("prog_tags", ctypes.c_uint64),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
        ("attach_btf_obj_id", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class _Array:
    """An array of the info call: the field with its length, the bytes of an element, and the field
    that says those, where there is one."""

    count: str
    size: int
    size_field: str = ""


_ARRAYS: Mapping[str, _Array] = {
    "map_ids": _Array("nr_map_ids", 4),
    "prog_tags": _Array("nr_prog_tags", 8),
    "xlated_prog_insns": _Array("xlated_prog_len", 1),
    "jited_prog_insns": _Array("jited_prog_len", 1),
    "jited_ksyms": _Array("nr_jited_ksyms", 8),
    "jited_func_lens": _Array("nr_jited_func_lens", 4),
    "func_info": _Array("nr_func_info", 8, "func_info_rec_size"),
    "line_info": _Array("nr_line_info", 16, "line_info_rec_size"),
    "jited_line_info": _Array("nr_jited_line_info", 8, "jited_line_info_rec_size"),
}
_FUNC = struct.Struct("=II")  # struct bpf_func_info
_LINE = struct.Struct("=IIII")  # struct bpf_line_info
_COLUMN_BITS = 10  # of its line_col; the line is in those above


class Function(NamedTuple):
    """A function: the number of its first instruction, and its type in the program's BTF."""

    first: int
    type_id: int


class SourceLine(NamedTuple):
    """Where an instruction comes from: its number; offsets of strings in the program's BTF, the
    file's name and the text of the line; and the line's number."""

    instruction: int
    file: int
    text: int
    number: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Machine code: of each function the address and the code, and the address at which each of the
    program's source lines begins."""

    functions: Sequence[tuple[int, bytes]]
    lines: Sequence[int]


class Outcome(NamedTuple):
    """What a run gave: its return value, the nanoseconds that a run took on average, and what the
    program made of the data and of the context."""

    retval: int
    duration: int
    data: bytes
    context: bytes


class Program(Object):
    """An open program."""

    kind = "program"
    by_id = Command.PROG_GET_FD_BY_ID
    next_id = Command.PROG_GET_NEXT_ID

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.info = self.information()

    @classmethod
    def load(
        cls,
        kind: int,
        code: bytes,
        *,
        name: str = "",
        gpl: bool = True,
        attach_type: int = 0,
        attach_btf_id: int = 0,
        btf: BtfObject | None = None,
        functions: Sequence[Function] = (),
        lines: Sequence[SourceLine] = (),
    ) -> Self:
        """Load a program of a type (`enum bpf_prog_type`): an array of `struct bpf_insn`. Its
        functions and source lines are in `btf`. Raises OSError with the verifier's last words."""
        instructions = ctypes.create_string_buffer(code, len(code))
        license_text = ctypes.create_string_buffer(b"GPL" if gpl else b"")
        function_records = b"".join(_FUNC.pack(*function) for function in functions)
        line_records = b"".join(
            _LINE.pack(line.instruction, line.file, line.text, line.number << _COLUMN_BITS)
            for line in lines
        )
        records = [ctypes.create_string_buffer(each) for each in (function_records, line_records)]
        log = buffer(1 << 16)
        arguments = syscall.LoadArguments(
            prog_type=kind, insns=ctypes.addressof(instructions), insn_cnt=len(code) // 8,
            license=ctypes.addressof(license_text), prog_name=name.encode(),
            expected_attach_type=attach_type, attach_btf_id=attach_btf_id,
            prog_btf_fd=btf.fd if btf else 0,
            func_info=ctypes.addressof(records[0]), func_info_cnt=len(functions),
            func_info_rec_size=_FUNC.size if functions else 0,
            line_info=ctypes.addressof(records[1]), line_info_cnt=len(lines),
            line_info_rec_size=_LINE.size if lines else 0,
        )  # fmt: skip
        with contextlib.suppress(OSError):
            return cls(syscall.bpf(Command.PROG_LOAD, arguments))
        # Only now with a log: that of a large program that is accepted may not find room (ENOSPC).
        arguments.log_level, arguments.log_size = 1, len(log)
        arguments.log_buf = ctypes.addressof(log)
        try:
            return cls(syscall.bpf(Command.PROG_LOAD, arguments))
        except OSError as error:
            why = log.value.decode("utf-8", "replace").strip().splitlines()[-2:]
            raise OSError(error.errno, f"{error.strerror}: {' '.join(why)}") from None

    def information(self) -> ProgramInfo:
        """What the info call says now: its counts rise while statistics are on."""
        return self.fill(ProgramInfo())

    def _arrays(self, *names: str) -> list[bytes]:
        """Some arrays of the info call. Empty are those that the kernel does not have, or does not
        give to this process. Raises OSError."""
        asked, rooms = ProgramInfo(), []
        for name in names:
            array = _ARRAYS[name]
            length: int = getattr(self.info, array.count)
            room = buffer(length * array.size)
            rooms.append(room)
            setattr(asked, array.count, length)
            setattr(asked, name, ctypes.addressof(room))
        for array in _ARRAYS.values():
            if array.size_field:
                setattr(asked, array.size_field, array.size)
        self.fill(asked)
        # Of code that it does not give, the kernel sets the pointer to 0 (bpf_prog_get_info_by_fd
        # in kernel/bpf/syscall.c), and of other arrays the length.
        return [
            room.raw[: getattr(asked, _ARRAYS[name].count) * _ARRAYS[name].size]
            if getattr(asked, name)
            else b""
            for name, room in zip(names, rooms, strict=True)
        ]

    def map_ids(self) -> list[int]:
        """The ids of the maps that it uses."""
        (ids,) = self._arrays("map_ids")
        return [number for (number,) in struct.iter_unpack("=I", ids)]

    def tags(self) -> list[str]:
        """The tag of each of its functions: the first digits of a digest of its code."""
        (tags,) = self._arrays("prog_tags")
        return [tags[at : at + 8].hex() for at in range(0, len(tags), 8)]

    def xlated(self) -> bytes:
        """Its code as the verifier left it: an array of `struct bpf_insn`, with the ids of maps in
        place of their addresses. Empty when the kernel does not give it to this process."""
        (code,) = self._arrays("xlated_prog_insns")
        return code

    def jited(self) -> bytes:
        """Its machine code, one function after another; empty when it has none, or the kernel does
        not give it to this process."""
        (code,) = self._arrays("jited_prog_insns")
        return code

    def function_lengths(self) -> list[int]:
        """The bytes of machine code of each function."""
        (lengths,) = self._arrays("jited_func_lens")
        return [length for (length,) in struct.iter_unpack("=I", lengths)]

    def machine(self) -> Machine:
        """Its machine code by function. Addresses are 0 where the kernel hides them."""
        code, symbols, lengths, lines = self._arrays(
            "jited_prog_insns", "jited_ksyms", "jited_func_lens", "jited_line_info"
        )
        functions, at = [], 0
        addresses = [address for (address,) in struct.iter_unpack("=Q", symbols)]
        sizes = [length for (length,) in struct.iter_unpack("=I", lengths)]
        for address, size in itertools.zip_longest(addresses, sizes or [len(code)], fillvalue=0):
            functions.append((address, code[at : at + size]))
            at += size
        return Machine(functions, [line for (line,) in struct.iter_unpack("=Q", lines)])

    def functions(self) -> list[Function]:
        """Its functions, as its BTF names them, in order."""
        (records,) = self._arrays("func_info")
        return [Function(*record) for record in _FUNC.iter_unpack(records)]

    def lines(self) -> list[SourceLine]:
        """The source lines of its instructions, in order."""
        (records,) = self._arrays("line_info")
        return [
            SourceLine(instruction, file, text, place >> _COLUMN_BITS)
            for instruction, file, text, place in _LINE.iter_unpack(records)
        ]

    def run(
        self, data: bytes, context: bytes = b"", *, repeat: int = 0, flags: int = 0, cpu: int = 0
    ) -> Outcome:
        """Run it on `data`, such as a packet, or on a context, as the type of the program takes it;
        `repeat` times in a row.

        It takes as long as the program does. Raises OSError: ENOTSUPP for types that cannot be run
        so, EINVAL for input that they do not take (Documentation/bpf/bpf_prog_run.rst).
        """
        arguments = syscall.RunArguments(prog_fd=self.fd, repeat=repeat, flags=flags, cpu=cpu)
        in_place = names.name_of(names.PROGRAM_TYPE, self.info.type) in _CONTEXT_IN_PLACE
        rooms: dict[str, ctypes.Array[ctypes.c_char]] = {}
        for name, given, most in (
            ("data", data, len(data) + _GROWTH),
            ("ctx", context, len(context)),
        ):
            if given:  # types that take none refuse a buffer for it
                room = rooms[name] = ctypes.create_string_buffer(given, most)
                setattr(arguments, f"{name}_size_in", len(given))
                setattr(arguments, f"{name}_in", ctypes.addressof(room))
                if name == "data" or not in_place:
                    setattr(arguments, f"{name}_size_out", most)
                    setattr(arguments, f"{name}_out", ctypes.addressof(room))
        syscall.bpf(Command.PROG_TEST_RUN, arguments)
        made = {
            name: room.raw[: getattr(arguments, f"{name}_size_out") or len(room)]
            for name, room in rooms.items()
        }
        retval = ctypes.c_int32(arguments.retval).value
        return Outcome(retval, arguments.duration, made.get("data", b""), made.get("ctx", b""))


# Types that change their context where it is, or not at all, and refuse a buffer for what became of
# it (bpf_prog_test_run_syscall and bpf_prog_test_run_raw_tp in net/bpf/test_run.c).
_CONTEXT_IN_PLACE = frozenset({"raw_tracepoint", "raw_tracepoint_writable", "syscall"})
# So many bytes a program may put before or behind a packet, at the very most.
_GROWTH = 4096


def enable_statistics() -> int:
    """Have the kernel count and time the runs of all programs as long as the descriptor that this
    gives is open. Raises OSError: EPERM for who is not root, EINVAL before Linux 5.8."""
    return syscall.bpf(Command.ENABLE_STATS, syscall.StatsArguments())
