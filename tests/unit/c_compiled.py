"""Compiling declarations, and comparing what the compiler made of them with what was meant."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fusefs.bpf import btf as bpf
from fusefs.bpf.btf import Btf, Kind

Qualifiers = tuple[str, ...]

FLAGS = ["-Wall", "-Wextra", "-Werror", "-std=gnu11", "-ferror-limit=5"]
# Ubuntu's clang 21 has something against -c beside -fsyntax-only.
FLAGS += ["-Wno-unused-command-line-argument"]
BPF = ["-target", "bpf", "-g", "-O2"]


def clang(source: str, directory: Path, *options: str) -> Path:
    """Compile without a warning; the object."""
    path, result = directory / "types.c", directory / "types.o"
    path.write_text(source)
    command = ["clang", *FLAGS, *options, "-c", str(path), "-o", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{source[:4000]}"
    return result


def types_in(compiled: Path) -> Btf:
    """The types of an object."""
    section = compiled.with_suffix(".btf")
    subprocess.run(["llvm-objcopy", f"--dump-section=.BTF={section}", compiled], check=True)
    return Btf.parse(section.read_bytes())


def compiled_types(declared: str, kept: Sequence[str], directory: Path) -> Btf:
    """What clang makes of declarations for BPF; the types spelled `kept` are not left out."""
    variables = [f"{spelled} keep_{number};" for number, spelled in enumerate(kept)]
    return types_in(clang("\n".join([declared, *variables, ""]), directory, *BPF))


def asserted(btf: Btf, type_ids: Iterable[int]) -> list[str]:
    """What must hold of named structs and unions: sizes, and where their named members are."""
    lines = []
    for type_id in type_ids:
        composite = btf.type(type_id)
        assert isinstance(composite, bpf.Composite)
        spelled = f"{'union' if composite.is_union else 'struct'} {composite.name}"
        lines.append(f'_Static_assert(sizeof({spelled}) == {composite.size}, "");')
        for member in composite.members:
            if member.name and not width(btf, member):
                place = f"__builtin_offsetof({spelled}, {member.name})"
                lines.append(f'_Static_assert({place} == {member.bit_offset // 8}, "");')
    return lines


def width(btf: Btf, member: bpf.Member) -> int:
    """A bitfield's width, in either encoding, or 0."""
    below = btf.type(btf.strip(member.type_id))
    if isinstance(below, bpf.Int) and not member.bits and below.bits != below.size * 8:
        return below.bits
    return member.bits


def place(btf: Btf, member: bpf.Member) -> tuple[str, int, int]:
    """A member's name, bit offset and width."""
    below = btf.type(btf.strip(member.type_id))
    more = below.offset if isinstance(below, bpf.Int) and not member.bits else 0
    return member.name, member.bit_offset + more, width(btf, member)


@dataclass
class Comparison:
    """Compares types of one blob with those of another, and counts the structs."""

    meant: Btf
    made: Btf
    structs: int = 0
    members: int = 0
    _seen: set[object] = field(default_factory=set)

    def named(self, type_id: int) -> None:
        """The type is the one of its name in the other blob."""
        target = self.meant.type(type_id)
        assert isinstance(target, bpf.Composite)
        kind = Kind.UNION if target.is_union else Kind.STRUCT
        found = self.made.find(target.name, kind)
        assert found is not None, target.name
        self.same(type_id, found)

    def same(
        self, meant_id: int, made_id: int, meant_above: Qualifiers = (), made_above: Qualifiers = ()
    ) -> None:
        """Both have the same layout, and lead to the same. Qualifiers of an array are `above` its
        elements."""
        key = meant_id, made_id, meant_above, made_above
        if key in self._seen:
            return
        self._seen.add(key)
        names, above = aliases(self.meant, meant_id, meant_above)
        made_names, other_above = aliases(self.made, made_id, made_above)
        assert made_names[: len(names)] == names
        meant = self.meant.type(self.meant.strip(meant_id))
        made = as_meant(meant, self.made.type(self.made.strip(made_id)))
        match meant, made:
            case bpf.Composite(), bpf.Composite() if meant.name == made.name:
                self.composites(meant, made)
            case bpf.Pointer(below), bpf.Pointer(made_below):
                self.mentioned(below, made_below)
            case bpf.Array(element, count), bpf.Array(made_element, made_count):
                assert count == made_count
                self.same(element, made_element, above, other_above)
            case bpf.Prototype(result, parameters), bpf.Prototype(made_result, made_parameters):
                self.mentioned(result, made_result)
                for (_, one), (_, other) in zip(parameters, made_parameters, strict=True):
                    self.mentioned(one, other)
            case _:
                assert scalar(meant) == scalar(made) or (
                    isinstance(meant, bpf.Enum)
                    and isinstance(made, bpf.Int)  # where an anonymous one comes again
                    and not meant.name
                    and meant.size == made.size
                ), (meant, made)

    def composites(self, meant: bpf.Composite, made: bpf.Composite) -> None:
        """Of the same size, with the same members at the same places."""
        self.structs += 1
        assert (made.size, made.is_union) == (meant.size, meant.is_union), meant
        members = [member for member in meant.members if member.name or not member.bits]
        others = [member for member in made.members if not member.name.startswith("__hole")]
        places = [place(self.meant, member) for member in members]
        assert [place(self.made, member) for member in others] == places, meant
        for member, other in zip(members, others, strict=True):
            self.members += 1
            if not member.name:  # clang forgets qualifiers of anonymous structs
                self.same(self.meant.strip(member.type_id), self.made.strip(other.type_id))
            elif not (width(self.meant, member) and self.stands_for(member, other)):
                self.same(member.type_id, other.type_id)

    def stands_for(self, meant: bpf.Member, made: bpf.Member) -> bool:
        """Whether a bitfield is one of a plain integer because C has none of its type: of
        several bits of a truth value, of an integer of odd size, of an enumeration with a sign
        that it would not have in C."""
        below = self.meant.type(self.meant.strip(meant.type_id))
        plain = self.made.type(made.type_id)
        match below:
            case bpf.Int(size=size, is_bool=is_bool):
                strange = (is_bool and meant.bits > 1) or size not in (1, 2, 4, 8, 16)
            case bpf.Enum(size=size, signed=signed):
                strange = signed or size in (2, 8)
            case _:
                strange = False
        return strange and isinstance(plain, bpf.Int) and plain.size >= below_size(below)

    def mentioned(self, meant_id: int, made_id: int) -> None:
        """What need not be whole; named structs are compared by name."""
        meant = self.meant.type(self.meant.strip(meant_id))
        made = self.made.type(self.made.strip(made_id))
        if isinstance(meant, bpf.Composite | bpf.Forward) and meant.name:
            assert isinstance(made, bpf.Composite | bpf.Forward)
            assert (meant.name, meant.is_union) == (made.name, made.is_union)
            assert aliases(self.made, made_id) == aliases(self.meant, meant_id), meant
        else:
            self.same(meant_id, made_id)


def as_meant(meant: bpf.Type, made: bpf.Type) -> bpf.Type:
    """Without the name that was made up for a type that has none, where C needs one: it is written
    before a function that takes it, say."""
    match meant, made:
        case bpf.Composite(name="") | bpf.Enum(name=""), bpf.Composite(name) | bpf.Enum(name):
            return replace(made, name="") if name.startswith("anonymous") else made
    return made


def below_size(target: bpf.Type) -> int:
    assert isinstance(target, bpf.Int | bpf.Enum)
    return target.size


def aliases(btf: Btf, type_id: int, above: Qualifiers = ()) -> tuple[list[str], Qualifiers]:
    """The typedefs of a type, and whether it is const or volatile, each once, as in C; and apart,
    what of that is about the elements of an array."""
    names: list[str] = []
    qualifiers = set(above)
    while isinstance(target := btf.type(type_id), bpf.Alias):
        if target.kind == Kind.TYPEDEF:
            names += [*sorted(qualifiers), target.name]
            qualifiers = set()
        elif target.kind in (Kind.CONST, Kind.VOLATILE):
            qualifiers.add(target.kind.name)
        type_id = target.target
    match target:
        case bpf.Array():
            return names, tuple(sorted(qualifiers))
        case bpf.Prototype():  # without meaning
            return names, ()
        case _:
            return [*names, *sorted(qualifiers)], ()


def scalar(target: bpf.Type) -> object:
    """What there is to know of a type that has no parts. Types that C has not are bytes."""
    match target:
        case bpf.Int(size=size) | bpf.Float(size=size) if size not in (1, 2, 4, 8, 16):
            return "bytes", size
        case bpf.Float(_name, size):
            return ("float", size) if size in (4, 8) else ("bytes", size)
        case bpf.Composite(_name, size, (bpf.Member("bytes"),)):
            return "bytes", size
        case bpf.Int(name, size, signed, is_bool=is_bool):
            return "integer", size, signed and name != "char", is_bool and size == 1
        case bpf.Enum(name, size, _signed, values):  # clang 14 gives 32 bits of the values
            return "enum", name, size, [(name, value & 0xFFFFFFFF) for name, value in values]
        case _:
            return type(target), getattr(target, "name", "")
