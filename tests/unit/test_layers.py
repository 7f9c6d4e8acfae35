"""Each layer imports only those below it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fusefs

ROOT = Path(fusefs.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module in a file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """What a module imports, wherever in it: modules, and what is taken out of them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, *packages: str) -> bool:
    """Whether a module is one of these, or inside one."""
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def allowed(importer: str, module: str) -> bool:
    """Whether the layers let a module import another."""
    top = module.partition(".")[0]
    if top in ("pyfuse3", "trio"):
        if top == "trio" and within(importer, "fusefs.waiting", "fusefs.listing", "fusefs.echoes"):
            return True
        above = ("operations", "requests", "replies", "loop", "mount", "plain_entries")
        return within(importer, *(f"fusefs.{name}" for name in above))
    if top == "fusefs":
        if within(importer, "fusefs.bpf"):
            return within(module, "fusefs.bpf")
        if within(importer, "fusefs.text"):
            return within(module, "fusefs.text", "fusefs.bpf.btf")
        if within(importer, "fusefs.tree"):
            return within(module, "fusefs.tree", "fusefs.text", "fusefs.bpf")
        return True
    if top == "inotify_simple":
        return within(importer, "fusefs.echoes")
    if top == "capstone":
        return within(importer, "fusefs.text.machine_code")
    if top == "elftools":
        return within(importer, "fusefs.bpf.btf_file")
    if within(importer, "fusefs.tree") and top == "ctypes":
        return False
    return top in sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports(path: Path) -> None:
    importer = name_of(path)
    wrong = [module for module in imported(path) if not allowed(importer, module)]
    assert wrong == []


def test_the_rule_finds_what_is_wrong() -> None:
    assert not allowed("fusefs.bpf.map", "fusefs.text.parse.parse")
    assert not allowed("fusefs.text.parse", "fusefs.bpf.map.Map")
    assert not allowed("fusefs.text.parse", "fusefs.bpf.btf_object.BtfObject")
    assert not allowed("fusefs.tree.node", "pyfuse3")
    assert not allowed("fusefs.tree.node", "fusefs.operations.Operations")
    assert not allowed("fusefs.cli", "trio")
    assert allowed("fusefs.text.parse", "fusefs.bpf.btf.Btf")
    assert allowed("fusefs.mount", "pyfuse3")
    assert len(MODULES) > 20
