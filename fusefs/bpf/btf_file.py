"""BTF from files: blobs as /sys/kernel/btf has them, and ELF files with a .BTF section."""

from __future__ import annotations

from pathlib import Path

from fusefs.bpf.btf import KERNEL_BTF, Btf, BtfError, kernel_btf
from fusefs.bpf.named_file import contents, opened

_ELF = b"\x7fELF"
_SECTION = ".BTF"
_LONGEST = 1 << 26  # bytes of a blob: several times the kernel's own


def read_btf(path: Path) -> Btf:
    """The types in a file. Raises OSError, and BtfError when there are none.

    A module's blob in /sys/kernel/btf is split from the kernel's own.
    """
    with opened(path) as file:
        is_elf = file.read(len(_ELF)) == _ELF
    blob = _section(path) if is_elf else contents(path, _LONGEST)
    split = path.parent == KERNEL_BTF.parent and path != KERNEL_BTF
    return Btf.parse(blob, kernel_btf() if split else None)


def _section(path: Path) -> bytes:
    # Here, and not at the top: few have such a file, and it takes 50 ms to import.
    from elftools.common.exceptions import ELFError  # noqa: PLC0415
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            section = ELFFile(file).get_section_by_name(_SECTION)
            if section is None:
                raise BtfError(f"the ELF file has no section {_SECTION}")
            if section.compressed:
                raise BtfError(f"the section {_SECTION} is compressed")
            if section["sh_size"] > path.stat().st_size:
                raise BtfError(f"the section {_SECTION} is larger than the ELF file")
            data: bytes = section.data()
            return data
    except ELFError as error:
        raise BtfError(f"the ELF file cannot be read: {error}") from None
