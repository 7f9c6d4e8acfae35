"""Addresses of the kernel, by the functions that they are in."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import pytest
from support.programs import load

from fusefs.bpf import kallsyms
from fusefs.bpf.kallsyms import Kallsyms, Symbol, Symbols


@pytest.fixture(scope="module")
def symbols() -> Symbols:
    """Those of the running kernel."""
    made = Symbols.read()
    if not len(made):
        pytest.skip("this kernel hides its addresses")
    return made


def functions() -> list[tuple[int, str, str]]:
    """Address, name and module of each function that the kernel has."""
    found = []
    for line in Path("/proc/kallsyms").read_text().splitlines():
        fields = line.split()
        if fields[1] in "tTwW":
            found.append((int(fields[0], 16), fields[2], fields[3][1:-1] if fields[3:] else ""))
    return found


def test_each_function_is_found_by_its_start(symbols: Symbols) -> None:
    names: dict[int, set[tuple[str, str]]] = {}
    for address, name, module in functions():
        names.setdefault(address, set()).add((name, module))
    for address, known in list(names.items())[::17]:
        found = symbols.find(address)
        if found is None:
            assert any(name == "_etext" for name, _ in known)
        else:
            assert (found.name, found.module) in known
            assert found.offset == 0


def test_and_by_what_is_behind_it(symbols: Symbols) -> None:
    addresses = sorted({address for address, _, _ in functions()})
    for address, following in list(itertools.pairwise(addresses))[::31]:
        start = symbols.find(address)
        if start and following - address < 1 << 20:
            last = symbols.find(following - 1)
            assert last == Symbol(start.name, start.module, following - 1 - address)


def test_what_is_in_no_function(symbols: Symbols) -> None:
    for address in (0, 1, 0x7FFF_FFFF_0000, 1 << 63, (1 << 64) - 1):
        assert symbols.find(address) is None
    end = next(address for address, name, _ in functions() if name == "_etext")
    assert symbols.find(end) is None
    assert symbols.find(end + 4096) is None


def test_the_memory_that_it_takes(symbols: Symbols) -> None:
    assert symbols.size < 50 * len(symbols)
    tracemalloc.start()
    made = Symbols.read()
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1.1 * made.size + (1 << 16)
    assert most < 200 * len(made)


def test_it_is_read_once_for_what_stays(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    read = Symbols.read

    def counted() -> Symbols:
        nonlocal reads
        reads += 1
        return read()

    monkeypatch.setattr(Symbols, "read", counted)
    made = Kallsyms()
    address, name, _ = next(one for one in functions() if one[1] == "vfs_read")
    for offset in range(100):
        assert made.names([address + offset, 0x5555_0000]) == {
            address + offset: f"{name}+{offset:#x}"
        }
    assert reads == 1
    made.names([(1 << 64) - 4096])  # may be in what came a moment ago
    made.names([(1 << 64) - 4096])
    assert reads <= 3  # tests beside this one load programs


@pytest.mark.parametrize("kind", ["hidden", "absent", "a directory"])
def test_what_cannot_be_read_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    file = tmp_path / "kallsyms"
    if kind == "hidden":  # kptr_restrict
        file.write_text("0000000000000000 T _stext\n0000000000000000 T vfs_read\n")
    elif kind == "a directory":
        file.mkdir()
    made = Symbols.read(file)
    assert len(made) == 0
    assert made.find(0) is None and made.find((1 << 64) - 1) is None
    monkeypatch.setattr(Symbols, "read", lambda: made)
    assert Kallsyms().names([0, 5, (1 << 64) - 4096]) == {}


def test_names_with_any_characters(tmp_path: Path) -> None:
    file = tmp_path / "kallsyms"
    base = 0xFFFF_FFFF_8000_0000
    names = [b"plain", b"with space", b"\x1b[2J", b"not\xffutf8", b"_R.rust$u20$", b"caf\xc3\xa9"]
    lines = [b"%016x t %s\n" % (base + 16 * n, name) for n, name in enumerate(names)]
    lines += [b"%016x t xfs_read\t[xfs]\n" % (base + 0x1000), b"%016x d data\n" % (base + 8)]
    lines += [b"%016x T _etext\n%016x T _stext\n" % (base + 0x800, base - 16)]
    file.write_bytes(b"".join(reversed(lines)))
    made = Symbols.read(file)
    for number, name in enumerate(names):
        found = made.find(base + 16 * number + 9)
        assert str(found) == name.decode("utf-8", "backslashreplace") + "+0x9"
    assert str(made.find(base + 0x1234)) == "xfs_read+0x234 [xfs]"
    assert made.find(base + 0x900) is None
    assert made.find(base + 0x1000 + (1 << 20)) is None


def test_of_several_names_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Symbols([(1 << 63, b"first"), (1 << 63, b"second"), (1 << 62, b"below")])
    assert str(made.find((1 << 63) + 1)) == "first+0x1"


def test_pieces_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kallsyms"
    made = [(1 << 63) + 16 * number for number in range(200)]
    file.write_text("".join(f"{address:016x} t f{address:x}\n" for address in made))
    for size in (1, 7, 100, 1 << 20):
        monkeypatch.setattr(kallsyms, "_PIECE", size)
        symbols = Symbols.read(file)
        assert [str(symbols.find(address)) for address in made] == [
            f"f{address:x}+0x0" for address in made
        ]


def test_functions_by_their_names(symbols: Symbols) -> None:
    known: dict[str, list[int]] = {}
    for address, name, module in functions():
        if not module:
            known.setdefault(name, []).append(address)
    for name in ("vfs_read", "__bpf_call_base", "schedule", *list(known)[::997]):
        assert symbols.address(name) in known[name]
    for absent in ("", "vfs_rea", "fs_read", "vfs_read\n", "no such function"):
        assert symbols.address(absent) is None
    assert Kallsyms().address("vfs_read") in known["vfs_read"]


def test_variables_by_their_addresses(symbols: Symbols) -> None:
    data: dict[int, list[str]] = {}
    for line in kallsyms.KALLSYMS.read_text().splitlines():
        digits, kind, name = line.split()[:3]
        data.setdefault(int(digits, 16), []).append("" if kind in "tTwW" else name)
    variables = {at: names for at, names in data.items() if at and "" not in names}
    made = Kallsyms()
    some = [*variables][:: max(1, len(variables) // 8)]
    vfs_read = symbols.address("vfs_read") or 0
    found = made.learn([*some, *(address + 1 for address in some), vfs_read])
    assert vfs_read not in found
    for address in some:
        assert found[address] in variables[address]
        assert found.get(address + 1) in (None, *data.get(address + 1, ()))


def test_a_program_that_came_a_moment_ago(symbols: Symbols) -> None:
    made = Kallsyms()
    assert made.find([symbols.address("vfs_read") or 0])  # they have been read
    for name in ("first", "second"):
        with load(name=name) as program:
            ((address, machine),) = program.machine().functions
            last = address + len(machine) - 1
            found = made.find([address, last])
            full = f"bpf_prog_{program.tags()[0]}_{name}"
            assert found[address] == Symbol(full, "bpf", 0)
            assert found[last] == Symbol(full, "bpf", len(machine) - 1)
