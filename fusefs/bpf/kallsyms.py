"""The kernel's symbols: which function an address is in.

/proc/kallsyms has first those of the kernel itself, in the order of their addresses, which stay as
they are; then those of modules, of trampolines and of BPF programs, in any order, which come and go
(kallsyms_open and reset_iter in kernel/kallsyms.c). To read it takes some 50 ms for each 100,000.
"""

from __future__ import annotations

import contextlib
import re
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fusefs.bpf.program import Program

KALLSYMS = Path("/proc/kallsyms")
_MODULES = Path("/proc/modules")
# Functions: address, and name with the module behind a tab. Other symbols are data.
_FUNCTION = re.compile(rb"^([0-9a-f]+) [tTwW] ([^\n]+)$", re.MULTILINE)
_PIECE = 1 << 18  # bytes of text that are taken apart at once
# No function has more bytes than this: what is further behind one is in no function that is known.
_LONGEST = 1 << 20
# Seconds after which symbols are read again although no module or program came: trampolines may
# have.
_OLD = 1.0
# An address of the kernel that is in no code of its own.
_UNSETTLED = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Symbol:
    """An address by the function that it is in: so many bytes behind its start. `module` is empty
    for the kernel itself, and a word such as `bpf` for what is none."""

    name: str
    module: str
    offset: int

    def __str__(self) -> str:
        module = f" [{self.module}]" if self.module else ""
        return f"{self.name}+{self.offset:#x}{module}"


class Symbols:
    """A table of functions: their addresses in order, and their names one after the other."""

    def __init__(self, functions: Iterable[tuple[int, bytes]]) -> None:
        """`functions` are addresses and names, as /proc/kallsyms has them."""
        addresses, starts, names = array("Q"), array("I"), bytearray()
        bounds = {b"_stext": 0, b"_etext": 0}
        for address, name in functions:
            addresses.append(address)
            starts.append(len(names))
            names += name
            names += b"\n"
            if name in bounds:
                bounds[name] = address
        # Of several names for one address, the first stays the first.
        order = sorted(range(len(addresses)), key=addresses.__getitem__)
        self._addresses = array("Q", map(addresses.__getitem__, order))
        self._starts = array("I", map(starts.__getitem__, order))
        self._names = bytes(names)
        # The code of the kernel itself, whose symbols neither come nor go.
        self._first, self._end = bounds[b"_stext"], bounds[b"_etext"]

    @classmethod
    def read(cls, path: Path = KALLSYMS) -> Symbols:
        """Those of /proc/kallsyms: none where it hides addresses (kptr_restrict in proc(5)), or
        cannot be read."""
        try:
            with path.open("rb") as file:
                return cls(_functions(file))
        except OSError:
            return cls(())

    def __len__(self) -> int:
        return len(self._addresses)

    def address(self, name: str) -> int | None:
        """Where the function of this name in the kernel itself begins; the first of several."""
        line = b"%s\n" % name.encode()
        at = 0 if self._names.startswith(line) else self._names.find(b"\n" + line) + 1
        return self._addresses[self._starts.index(at)] if self._names.startswith(line, at) else None

    @property
    def size(self) -> int:
        """The bytes of memory that it takes, or nearly so."""
        return (8 + 4) * len(self) + len(self._names)

    def settled(self, address: int) -> bool:
        """Whether a later table can tell no more of an address than this one: those of processes,
        and of the kernel's own code."""
        return not address >> 63 or self._first <= address < self._end

    def find(self, address: int) -> Symbol | None:
        """The function that an address is in, or None where none is known."""
        following = bisect_right(self._addresses, address)
        if not following:
            return None
        start = self._addresses[following - 1]
        if address - start >= _LONGEST or start == self._end:
            return None
        number = bisect_left(self._addresses, start, 0, following)
        return Symbol(*self._name(number), address - start)

    def _name(self, number: int) -> tuple[str, str]:
        start = self._starts[number]
        line = self._names[start : self._names.index(b"\n", start)]
        name, _, module = line.decode("utf-8", "backslashreplace").partition("\t")
        return name, module.removeprefix("[").removesuffix("]")


def _functions(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    rest = b""
    while piece := file.read(_PIECE):
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        for digits, name in _FUNCTION.findall(whole + newline):
            if address := int(digits, 16):
                yield address, name


def _variables(addresses: Collection[int]) -> dict[int, str]:
    """The names of the variables at these addresses, as far as there are some."""
    wanted = {b"%016x" % address for address in addresses}
    found: dict[int, str] = {}
    with contextlib.suppress(OSError), KALLSYMS.open("rb") as file:  # then nothing has a name
        for line in file:
            if line[:16] in wanted:
                digits, kind, name = line.split(None, 2)
                if kind not in b"tTwW":
                    found[int(digits, 16)] = name.decode("utf-8", "replace").rstrip()
    return found


class Kallsyms:
    """The symbols as they are now. They are read when they are asked for, and again when an
    address may be in what came later: in a module or a BPF program."""

    def __init__(self) -> None:
        self._symbols: Symbols | None = None
        self._read = float("-inf")
        self._modules = b""
        self._last_program = 0

    def names(self, addresses: Collection[int]) -> dict[int, str]:
        """`symbol+0xoffset [module]` for each of the addresses that is in a known function."""
        return {address: str(symbol) for address, symbol in self.find(addresses).items()}

    def find(self, addresses: Collection[int]) -> dict[int, Symbol]:
        """The symbol of each of the addresses that is in a known function."""
        symbols = self._symbols_for(addresses)
        found = ((address, symbols.find(address)) for address in addresses)
        return {address: symbol for address, symbol in found if symbol}

    def learn(self, addresses: Collection[int]) -> dict[int, str]:
        """Read what `find` may need for what came lately, which takes a tenth of a second; and give
        the names of the variables at some addresses, which takes as long again, if there are any.
        It may be called by another thread."""
        self._symbols_for([_UNSETTLED])
        return _variables(addresses) if addresses else {}

    def address(self, name: str) -> int | None:
        """Where the function of this name in the kernel itself begins, if that is known."""
        return self._symbols_for(()).address(name)

    def _symbols_for(self, addresses: Collection[int]) -> Symbols:
        symbols = self._symbols
        settled = symbols is not None and all(map(symbols.settled, addresses))
        if symbols is None or (not settled and self._changed()):
            self._changed()
            self._symbols = symbols = Symbols.read()
            self._read = time.monotonic()
        return symbols

    def _changed(self) -> bool:
        """Whether there may be other symbols than those that were read; notes how it is now."""
        modules, last = self._modules, self._last_program
        with contextlib.suppress(OSError):  # not for everybody to see
            while (program := Program.id_after(self._last_program)) is not None:
                self._last_program = program
        with contextlib.suppress(OSError):  # a kernel without modules
            self._modules = _MODULES.read_bytes()
        old = time.monotonic() - self._read > _OLD
        return old or modules != self._modules or last != self._last_program


# Those of this machine, which all share.
kernel_symbols = Kallsyms()
