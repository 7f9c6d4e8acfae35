"""`types.h`: C declarations of the types that an object's BTF gives it."""

from __future__ import annotations

from collections.abc import Iterator

from fusefs.bpf.btf import (
    Btf,
    BtfError,
    Composite,
    DataSection,
    Function,
    Kind,
    Pointer,
    Prototype,
)
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.text.c_names import remark
from fusefs.text.declarations import declarations
from fusefs.tree.files import TextFile
from fusefs.tree.map_view import Found, MapView

# Sections that describe a program to its loader, and hold no variables.
_FOR_LOADERS = frozenset({".maps", ".ksyms", "license", "version"})


class TypesFile(TextFile):
    """Of a map the types of keys and values, of a program its functions and global variables.

    They are the same as long as the object lives. bpf(2) gives BTF to root alone, and so are those
    of a program for root; those of a map's entries are in all that is shown of them.
    """

    __slots__ = ("_found",)

    def __init__(self, found: Found) -> None:
        super().__init__(found.subject, "types.h")
        self._found = found

    @property
    def known(self) -> bool:
        return self._sighting.seen

    @property
    def roots(self) -> bool:
        return super().roots or self._found.kind == Program.kind

    def render(self, obj: Object) -> bytes:
        title = f"{obj.kind} {obj.info.id}"
        try:
            lines = [*self._lines(obj)]
        except (BtfError, PermissionError) as error:
            lines = [comment(f"The BTF of this {obj.kind} cannot be read: {error}")]
        guard = f"BPF_{obj.kind.upper()}_{obj.info.id}_TYPES_H"
        text = "\n".join(
            [f"#ifndef {guard}", f"#define {guard}", "", comment(f"Types of {title}"), *lines]
        )
        return f"{text.rstrip()}\n\n#endif\n".encode()

    def _lines(self, obj: Object) -> Iterator[str]:
        view = self._found.view
        if view:
            yield from _of_map(view)
        elif isinstance(obj, Program) and obj.info.btf_id:
            with BtfObject.from_id(obj.info.btf_id) as btf_object:
                btf = btf_object.parse()
            yield from ("", declarations(btf, _of_program(btf, obj)))
        else:
            yield comment(f"This {obj.kind} has no BTF.")


def comment(text: str) -> str:
    """`text` as a comment in C."""
    return f"/* {remark(text)} */"


def _of_map(view: MapView) -> Iterator[str]:
    of_map = view.btf
    key = f"{of_map.key_type or 'no BTF'}, {view.key_size} bytes"
    value = f"{of_map.value_type or 'no BTF'}, {of_map.value.size} bytes"
    yield comment(f"key: {key}")
    yield comment(f"value: {value}")
    if of_map.problem:
        yield comment(of_map.problem)
        return
    if of_map.value_id and (btf := of_map.own()):
        yield from ("", declarations(btf, [of_map.key_id, of_map.value_id]).rstrip())
    if kernel := of_map.kernel():
        yield from ("", declarations(kernel, [of_map.kernel_value_id]).rstrip())


def _of_program(btf: Btf, program: Program) -> Iterator[int]:
    """Its functions, and what their parameters point to, as its context; and its variables."""
    # The blob is often that of many programs, which were in one file.
    functions = [function.type_id for function in program.functions()]
    for type_id in functions or btf.of_kind(Kind.FUNC):
        yield type_id
        yield from _pointed_to(btf, type_id)
    for type_id in btf.of_kind(Kind.DATASEC):
        section = btf.type(type_id)
        if isinstance(section, DataSection) and section.name not in _FOR_LOADERS:
            yield type_id


def _pointed_to(btf: Btf, function_id: int) -> Iterator[int]:
    """The structs that the parameters of a function point to."""
    function = btf.type(function_id)
    prototype = btf.type(function.prototype) if isinstance(function, Function) else None
    for _name, parameter in prototype.parameters if isinstance(prototype, Prototype) else ():
        pointer = btf.type(btf.strip(parameter))
        if isinstance(pointer, Pointer):
            target = btf.strip(pointer.target)
            if isinstance(btf.type(target), Composite):
                yield target
