"""What the numbers in a loaded program's code are called: helpers, kfuncs, functions, maps,
variables.

Source: bpf_insn_prepare_dump in kernel/bpf/syscall.c, jit_subprogs and fixup_kfunc_call in
kernel/bpf/verifier.c.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fusefs.bpf.btf import Btf, BtfError, DataSection, Function, Variable, kernel_btf
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.kallsyms import kernel_symbols
from fusefs.bpf.map import Map
from fusefs.bpf.program import Program
from fusefs.text.ebpf import Instruction, Named, Names, decode
from fusefs.text.listing import Line

# The kernel calls helpers by their distance from this function; a tail call has the number of its
# helper (BPF_FUNC_tail_call in linux/bpf.h).
_BASE = "__bpf_call_base"
_TAIL_CALL = 12
HIDDEN = "the kernel hides it here: it takes CAP_SYSLOG, see kernel.kptr_restrict in sysctl(8)"


class ProgramNames(Names):
    """Of one program, by what the kernel tells now. `functions` has the names of its functions by
    their first instructions."""

    def __init__(
        self, program: Program, variables: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """`variables` are those of the kernel that it refers to, by address. Raises OSError."""
        self._variables = variables
        self._btf = _btf(program)
        self._maps: dict[int, _MapNames] = {}
        first = program.functions()
        self._starts = [function.first for function in first]
        names = {function.first: _function_name(self._btf, function.type_id) for function in first}
        own_name = program.info.name.decode("utf-8", "replace")
        self.functions: Mapping[int, str] = {0: own_name or f"program_{program.info.id}"} | {
            start: name for start, name in names.items() if name
        }

    def lines(self, program: Program) -> dict[int, Line]:
        """The source lines of instructions, by the index of the first."""
        btf = self._btf
        if btf is None:
            return {}
        found = {}
        with contextlib.suppress(BtfError):  # which shows no source then
            for line in program.lines():
                file, text = btf.string(line.file), btf.string(line.text)
                found[line.instruction] = Line(file, line.number, text)
        return found

    def nth(self, number: int) -> str:
        """The name of a function by its number among those that were compiled."""
        start = self._starts[number] if number < len(self._starts) else 0
        return self.functions.get(start, f"function_{number}")

    def helper(self, number: int) -> Named | None:
        if number == _TAIL_CALL:
            return Named("bpf_tail_call")
        if not number:
            return Named("0", HIDDEN)
        base = kernel_symbols.address(_BASE)
        return self._symbol(base + number) if base else None

    def kfunc(self, number: int, offset: int) -> Named | None:
        # The number is a distance to where a function begins, as of helpers; or where calls may go
        # far, an id in the kernel's BTF, or with an offset in that of some module.
        called = self.helper(number)
        if called and "+" not in called.text:
            return called
        btf = kernel_btf()
        name = _function_name(btf, number) if btf and number > 0 and not offset else ""
        return Named(name) if name else called

    def subprogram(self, call: Instruction) -> Named | None:
        # The number is that of the function, and the offset where it is, cut to 16 bits. None calls
        # the first one, which is the program: 0 is a number that the kernel hides.
        if 0 < call.imm < len(self._starts):
            return self._function(self._starts[call.imm])
        return self._function(call.index + 1 + call.offset)

    def function(self, load: Instruction) -> Named | None:
        return self._function(load.index + 1 + load.imm)

    def _function(self, start: int) -> Named | None:
        name = self.functions.get(start)
        return Named(name) if name else None

    def map(self, number: int) -> Named | None:
        found = self._map(number)
        return Named(found.name, f"map {number}") if found.name else None

    def map_value(self, number: int, offset: int) -> Named | None:
        found = self._map(number)
        for name, start, size in found.variables:
            if start <= offset < start + size:
                text = name if offset == start else f"{name} + {offset - start}"
                return Named(text, f"map {number} {found.name} + {offset}")
        return Named(f"{found.name} + {offset}", f"map {number}") if found.name else None

    def address(self, value: int) -> Named | None:
        if not _is_kernel(value):
            return None
        if variable := self._variables.get(value):
            return Named(variable, f"{value:#x}")
        return self._symbol(value) or Named(str(value - (1 << 64)), f"{value:#x}")

    def _symbol(self, address: int) -> Named | None:
        symbol = kernel_symbols.find([address]).get(address)
        if symbol is None:
            return None
        return Named(symbol.name if not symbol.offset else str(symbol))

    def _map(self, number: int) -> _MapNames:
        if number not in self._maps:
            self._maps[number] = _map_names(number)
        return self._maps[number]


def kernel_addresses(code: bytes) -> set[int]:
    """The 64-bit constants in a program that may be addresses of the kernel."""
    loads = (each for each in decode(code) if each.next_imm is not None and not each.src)
    return {load.imm64 for load in loads if _is_kernel(load.imm64)}


def _is_kernel(value: int) -> bool:
    return value >> 48 == 0xFFFF


@dataclass(frozen=True, slots=True)
class _MapNames:
    """The name of a map, and of each of its global variables name, offset and size."""

    name: str = ""
    variables: Sequence[tuple[str, int, int]] = ()


def _map_names(number: int) -> _MapNames:
    """What is known of a map; nothing when it is gone, or not for this process to open."""
    try:
        with Map.from_id(number) as bpf_map:
            name = bpf_map.info.name.decode("utf-8", "replace")
            btf, value = _btf(bpf_map), bpf_map.info.btf_value_type_id
    except (FileNotFoundError, PermissionError):
        return _MapNames()
    return _MapNames(name, [*_variables(btf, value)] if btf and value else ())


def _variables(btf: Btf, type_id: int) -> Iterator[tuple[str, int, int]]:
    with contextlib.suppress(BtfError):
        section = btf.type(type_id)
        members = section.variables if isinstance(section, DataSection) else ()
        for variable_id, offset, size in members:
            variable = btf.type(variable_id)
            if isinstance(variable, Variable):
                yield variable.name, offset, size


def _btf(obj: Program | Map) -> Btf | None:
    """The BTF of an object; None without any that can be read."""
    try:
        with BtfObject.from_id(obj.info.btf_id) as btf_object:
            return btf_object.parse()
    except (FileNotFoundError, PermissionError, BtfError):
        return None


def _function_name(btf: Btf | None, type_id: int) -> str:
    try:
        function = btf.type(type_id) if btf else None
    except BtfError:
        return ""
    return function.name if isinstance(function, Function) else ""
