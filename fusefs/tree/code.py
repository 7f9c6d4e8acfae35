"""`xlated` and `jited`: a program's code as text, and as it is. To root alone, as bpf(2) has it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import platform
from collections.abc import Collection, Iterator, Mapping

from fusefs.bpf.credentials import Caller
from fusefs.bpf.kallsyms import kernel_symbols
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.bpf.task import Task
from fusefs.text import machine_code
from fusefs.text.listing import listing
from fusefs.tree.code_names import HIDDEN, ProgramNames, kernel_addresses
from fusefs.tree.files import Fixed, ObjectFile
from fusefs.tree.node import Attributes, Handle, Opening, refusal
from fusefs.tree.stream_files import StreamFile
from fusefs.tree.subject import Subject

_HIDDEN = f"# {HIDDEN}\n"
_NOT_COMPILED = "# It has no machine code: an interpreter runs it.\n"
_NO_CAPSTONE = (
    "# To show machine code takes capstone: pip install 'bpf-fusefs[jit]' where bpf-fusefs is\n"
    "# installed, and mount again. jited.bin is the code as it is.\n"
)
# It does so by kmemdup (bpf_insn_prepare_dump in kernel/bpf/syscall.c), 4 MiB at the very most.
_TOO_LARGE = (
    "# The kernel copies code in one piece to show it, and has no room for so large a one.\n"
)
# So many lines are written in one go.
_PIECE = 256


class _Code(StreamFile):
    """A program's code as text. The kernel shows code to root alone (bpf_prog_get_info_by_fd in
    kernel/bpf/syscall.c, for who is not bpf_capable)."""

    __slots__ = ()

    @property
    def roots(self) -> bool:
        return True

    def prepare(self) -> Iterator[int | None]:
        task = Task(self._learn)
        try:
            while not task.done:
                yield task.ended
            task.result()
        finally:
            task.leave()

    def _learn(self) -> None:
        """Have the kernel's symbols read, if there are others than before."""
        kernel_symbols.learn(())

    def lines(self, program: Program) -> Iterator[str]:
        """The text, line by line; an empty one where others may have a turn."""
        raise NotImplementedError

    def stream(self, obj: Object) -> Iterator[bytes]:
        assert isinstance(obj, Program)  # only programs are given these files
        lines = self.lines(obj)
        while piece := [*itertools.islice(lines, _PIECE)]:
            yield "".join(piece).encode("utf-8", "replace")


class Xlated(_Code):
    """eBPF code, as the verifier left it."""

    __slots__ = ("_variables",)

    def __init__(self, subject: Subject, name: str) -> None:
        super().__init__(subject, name)
        self._variables: Mapping[int, str] | None = None  # of the kernel, by their addresses

    def _learn(self) -> None:
        addresses: Collection[int] = ()
        if self._variables is None:
            with self.subject.open() as obj:
                assert isinstance(obj, Program)  # only programs are given these files
                with contextlib.suppress(OSError):  # which is told to who reads it
                    addresses = kernel_addresses(obj.xlated())
        self._variables = {**(self._variables or {}), **kernel_symbols.learn(addresses)}

    def lines(self, program: Program) -> Iterator[str]:
        try:
            code = program.xlated()
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            return iter([_TOO_LARGE])
        if not code:
            return iter([_HIDDEN])
        names = ProgramNames(program, self._variables or {})
        return listing(code, names, names.functions, names.lines(program))


class Jited(_Code):
    """Machine code."""

    __slots__ = ()

    def lines(self, program: Program) -> Iterator[str]:
        if not program.info.jited_prog_len:
            yield _HIDDEN if program.fdinfo().get("prog_jited") == "1" else _NOT_COMPILED
            return
        if not machine_code.available():
            yield _NO_CAPSTONE
            return
        machine, names = program.machine(), ProgramNames(program)
        if not any(code for _address, code in machine.functions):
            yield _HIDDEN
            return
        sources = names.lines(program)
        # The nth address is that of the nth source line; instructions that are gone have none.
        lines = dict(zip(machine.lines, sources.values(), strict=False))
        lines.pop(0, None)  # addresses are hidden
        for number, (address, code) in enumerate(machine.functions):
            if number:
                yield "\n"
            yield f"{names.nth(number)}:\n"
            yield from machine_code.listing(code, address, platform.machine(), lines, _symbols)


def _symbols(addresses: Collection[int]) -> Mapping[int, str]:
    found = kernel_symbols.find(addresses).items()
    return {address: str(symbol) if symbol.offset else symbol.name for address, symbol in found}


class Raw(ObjectFile):
    """Code as it is: `xlated.bin`, `jited.bin`."""

    __slots__ = ()

    @property
    def roots(self) -> bool:
        return True

    @property
    def jited(self) -> bool:
        """Whether it is the machine code."""
        return self.name.startswith("jited")

    def attributes(self) -> Attributes:
        attributes = self.basics(self.subject.status())
        with self.subject.open() as obj:
            info = obj.info
            attributes.size = info.jited_prog_len if self.jited else info.xlated_prog_len
        return attributes

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        with self.subject.open() as obj:
            assert isinstance(obj, Program)  # only programs are given these files
            code = obj.jited() if self.jited else obj.xlated()
            if not code and (obj.info.jited_prog_len or not self.jited):
                raise self.refuse(obj, "read", refusal(errno.EPERM, HIDDEN))
            return Fixed(code)
