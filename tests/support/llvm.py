"""LLVM's tools for BPF: compiling, assembling, and the disassembler to hold ours to."""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from fusefs.text.ebpf import ByteOrder
from support.network import PROGRAMS
from support.shell import checked, run

UNKNOWN = "<unknown>"

_SECTION = re.compile(r"Disassembly of section (.*):")
_INSTRUCTION = re.compile(r" *(\d+):\t(.*)")
_SYMBOL = re.compile(r" <[^<> ]+>$")  # where a jump leads to, in bytes from a symbol


@functools.cache
def newest(name: str) -> str:
    """The tool of that name, of the newest LLVM that is installed: `clang-19` before `clang`."""
    numbered = re.compile(re.escape(name) + r"-(\d+)")
    versions = [
        int(found[1])
        for directory in os.get_exec_path()
        if os.path.isdir(directory)
        for file in os.listdir(directory)
        if (found := numbered.fullmatch(file))
    ]
    return f"{name}-{max(versions)}" if versions else name


def compiled(name: str, directory: Path, *options: str) -> Path:
    """An object of one of the programs beside the tests, without types."""
    result = directory / f"{name}{''.join(options)}.o"
    headers = f"/usr/include/{platform.machine()}-linux-gnu"
    source = PROGRAMS / f"{name}.bpf.c"
    clang = newest("clang")
    checked(clang, "-target", "bpf", f"-I{headers}", *options, "-c", source, "-o", result)
    return result


def assembled(lines: Sequence[str], directory: Path, order: ByteOrder = "little") -> Path:
    """An object whose .text is made of these lines."""
    source, result = directory / f"{order}.s", directory / f"{order}.o"
    source.write_text("".join(f"{line}\n" for line in lines))
    triple = "bpfel" if order == "little" else "bpfeb"
    options = ("-triple", triple, "-mcpu=v4", "-filetype=obj")
    checked(newest("llvm-mc"), *options, source, "-o", result)
    return result


@functools.cache
def understands(line: str) -> bool:
    """Whether the newest assembler knows an instruction."""
    options = ("-triple", "bpfel", "-mcpu=v4", "-filetype=null")
    return run([newest("llvm-mc"), *options], given=line.encode()).code == 0


def code(path: Path) -> dict[str, bytes]:
    """The sections of an object that are code."""
    with path.open("rb") as file:
        return {
            section.name: section.data()
            for section in ELFFile(file).iter_sections()
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR and section["sh_size"]
        }


def disassembled(path: Path) -> dict[str, dict[int, str]]:
    """What llvm-objdump makes of the sections that are code: the text of instructions by index.

    Plain loads and stores are those of a CPU without registers of 32 bits, as ours are.
    """
    first, second = _disassembled(path, "v4"), _disassembled(path, "v1")
    return {
        name: {
            index: second[name][index] if _is_plain(text) else text
            for index, text in section.items()
        }
        for name, section in first.items()
    }


def _is_plain(text: str) -> bool:
    """Whether it is a load or store, and not an atomic one."""
    return text.startswith("*(") or " = *(" in text


def _disassembled(path: Path, cpu: str) -> Mapping[str, Mapping[int, str]]:
    options = ("-d", "-z", "--no-show-raw-insn", "--no-print-imm-hex", f"--mcpu={cpu}")
    sections: dict[str, dict[int, str]] = {}
    for line in checked(newest("llvm-objdump"), *options, path).splitlines():
        if found := _SECTION.match(line):
            section = sections.setdefault(found[1], {})
        elif found := _INSTRUCTION.match(line):
            section[int(found[1])] = _SYMBOL.sub("", found[2].replace("\t", " ").strip())
    return sections
