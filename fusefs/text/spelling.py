"""BTF types spelled as C."""

from __future__ import annotations

from fusefs.bpf import btf as bpf
from fusefs.bpf.btf import Btf, BtfError, Kind

_MAX_DEPTH = 64
_QUALIFIERS = {Kind.CONST: "const", Kind.VOLATILE: "volatile", Kind.RESTRICT: "restrict"}


def type_name(btf: Btf, type_id: int) -> str:
    """The type on one line: "struct flow_key", "char[16]", "const char *", "void (*)(int)".

    Raises `BtfError` for a malformed type.
    """
    return _spell(btf, type_id, "", 0)


def _spell(btf: Btf, type_id: int, declarator: str, depth: int, *, brief: bool = False) -> str:
    """The type around `declarator`, which is what pointers, arrays and functions add to it.

    `brief` leaves out the parameters of functions: a parameter's own are left out, lest the
    spelling be exponential in its depth.
    """
    if depth > _MAX_DEPTH:
        raise BtfError(f"type {type_id} is nested too deep, or within itself")

    def around(target: int, inner: str) -> str:
        return _spell(btf, target, inner, depth + 1, brief=brief)

    match btf.type(type_id):
        case bpf.Pointer(target):
            inner = f"*{declarator}"
            if isinstance(btf.type(btf.strip(target)), bpf.Array | bpf.Prototype) and not _named(
                btf, target
            ):
                inner = f"({inner})"
            return around(target, inner)
        case bpf.Array(element, count):
            return around(element, f"{declarator}[{count}]")
        case bpf.Prototype(result, parameters):
            spelled = _parameters(btf, parameters, depth) if not brief else "..."
            return around(result, f"{declarator}({spelled or 'void'})")
        case bpf.Alias(Kind.TYPEDEF, name, _target):
            return _join(name, declarator)
        case bpf.Alias(Kind.TYPE_TAG, _name, target):
            return around(target, declarator)
        case bpf.Alias(kind, _name, target):
            if isinstance(btf.type(target), bpf.Pointer):
                return around(target, f" {_QUALIFIERS[kind]}{declarator}")
            return f"{_QUALIFIERS[kind]} {around(target, declarator)}"
        case bpf.Variable(_name, target) | bpf.Function(_name, target):
            return around(target, declarator)
        case other:
            return _join(_base_name(other), declarator)


def _parameters(btf: Btf, parameters: tuple[tuple[str, int], ...], depth: int) -> str:
    spelled = (
        _spell(btf, target, "", depth + 1, brief=True) if target else "..."
        for _name, target in parameters
    )
    return ", ".join(spelled) or "void"


def _named(btf: Btf, type_id: int) -> bool:
    """Whether a typedef's name stands for the type."""
    target = btf.type(type_id)
    while isinstance(target, bpf.Alias):
        if target.kind == Kind.TYPEDEF:
            return True
        target = btf.type(target.target)
    return False


def _join(name: str, declarator: str) -> str:
    return f"{name} {declarator}" if declarator[:1] in ("*", "(") else name + declarator


def _base_name(target: bpf.Type) -> str:
    match target:
        case bpf.Composite(name, is_union=is_union) | bpf.Forward(name, is_union=is_union):
            return f"{'union' if is_union else 'struct'} {name or '(anonymous)'}"
        case bpf.Enum(name):
            return f"enum {name or '(anonymous)'}"
        case bpf.Int(name) | bpf.Float(name) | bpf.DataSection(name) | bpf.DeclTag(name):
            return name or "(anonymous)"
        case _:
            return "void"
