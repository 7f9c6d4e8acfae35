"""BTF types as C declares things of them: `char name[16]`, `struct { ... } (*name)(int)`.

What has a name in C (named structs, typedefs) is mentioned by it, and must have been declared;
what has none is written in place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fusefs.bpf import btf as bpf
from fusefs.bpf.btf import Btf, BtfError, Kind
from fusefs.text.c_layout import Field, Layouts, Padding
from fusefs.text.c_names import Names, Scope, identifier, keyword, literal
from fusefs.text.c_scalars import base_type, constant, integer
from fusefs.text.decoded import Types

MAX_DEPTH = 64
MAX_TEXT = (
    1 << 17
)  # characters of declarations: some tenths of a second's work; the kernel's longest has 25217
_QUALIFIERS = {Kind.CONST: "const", Kind.VOLATILE: "volatile", Kind.RESTRICT: "restrict"}
TYPE_TAG = "__btf_type_tag"
DECL_TAG = "__btf_decl_tag"


class Speller:
    """Writes declarators, and the bodies of structs, unions and enums.

    Raises `BtfError` for what is malformed, nested too deep, or longer than `most` in all.
    """

    def __init__(self, btf: Btf, types: Types, layouts: Layouts, most: int) -> None:
        self.names = Names()
        self.tags_used: set[str] = set()  # TYPE_TAG, DECL_TAG
        self._btf = btf
        self._types = types
        self._layouts = layouts
        self._most = self._room = most
        self._words: dict[int, str] = {}  # of types that are one in C
        self._inlined: set[int] = set()
        self._decl_tags = _decl_tags(btf)

    def declare(self, type_id: int, declarator: str, level: int = 0) -> str:
        """The declaration of `declarator` as of this type, without an end; indented by `level`
        tabs from the second line."""
        return self._declare(type_id, declarator, level, 0, (), pointee=False)

    def _declare(
        self,
        type_id: int,
        declarator: str,
        level: int,
        depth: int,
        qualifiers: tuple[str, ...],
        *,
        pointee: bool,
    ) -> str:
        """`qualifiers`, and tags, are those above this type, outermost first; tags are only known
        to C for what is pointed to, the `pointee`."""
        if depth > MAX_DEPTH:
            raise BtfError(f"type {type_id} is nested too deep")
        self.spend(len(declarator) + 8)

        def around(target: int, inner: str, *passed: str, pointee: bool = False) -> str:
            return self._declare(target, inner, level, depth + 1, passed, pointee=pointee)

        match self._types[type_id]:
            case bpf.Pointer(target):
                allowed = self._allowed(type_id, qualifiers)
                inner = f"*{' '.join(allowed)}{' ' * bool(allowed and declarator)}{declarator}"
                if self._binds_tighter(target):
                    inner = f"({inner})"
                return around(target, inner, pointee=True)
            case bpf.Array(element, count):
                passed = [word for word in qualifiers if not word.startswith(TYPE_TAG)]
                return around(element, f"{declarator}[{count}]", *passed)
            case bpf.Prototype() as prototype:
                parameters = self._parameters(prototype, level, depth)
                return around(self._result(prototype), f"{declarator}({parameters})")
            case bpf.Alias(Kind.TYPE_TAG, name, target):
                if not pointee or isinstance(self._types[target], bpf.Prototype | bpf.Array):
                    return around(target, declarator, *qualifiers, pointee=pointee)
                tag = self._attribute(TYPE_TAG, name)
                return around(target, declarator, *qualifiers, tag, pointee=True)
            case bpf.Alias(kind, _name, target) if kind in _QUALIFIERS:
                word = _QUALIFIERS[kind]
                return around(target, declarator, *qualifiers, word, pointee=pointee)
        base = self._base(type_id, level, depth)
        return _joined(base, self._allowed(type_id, qualifiers), declarator)

    def begin(self) -> None:
        """What comes now may be as long as all."""
        self._room = self._most

    def spend(self, length: int) -> None:
        """Counts text. What is nested can be exponentially longer than the blob."""
        self._room -= length
        if self._room < 0:
            raise BtfError(f"the declarations are longer than {self._most} characters")

    def _allowed(self, type_id: int, qualifiers: Sequence[str]) -> list[str]:
        """The qualifiers and tags as C takes them: once, and `restrict` on pointers to objects."""
        if not qualifiers:
            return []
        below = self._types.below(type_id)
        if isinstance(below, bpf.Prototype):
            return []
        words = [word for word in _QUALIFIERS.values() if word in qualifiers]
        if "restrict" in words and not (
            isinstance(below, bpf.Pointer)
            and not isinstance(self._types.below(below.target), bpf.Prototype)
        ):
            words.remove("restrict")
        return words + [word for word in reversed(qualifiers) if word.startswith(TYPE_TAG)]

    def _binds_tighter(self, type_id: int) -> bool:
        """Whether what follows a declarator of this type must not be taken for its pointer's."""
        for _ in range(MAX_DEPTH):
            match self._types[type_id]:
                case bpf.Array() | bpf.Prototype():
                    return True
                case bpf.Alias(kind, _name, target) if kind != Kind.TYPEDEF:
                    type_id = target
                case _:
                    return False
        raise BtfError(f"type {type_id} is nested too deep")

    def _base(self, type_id: int, level: int, depth: int) -> str:
        if type_id in self._words:
            return self._words[type_id]
        match self._types[type_id]:
            case bpf.Void():
                return "void"
            case bpf.Int() | bpf.Float() as number:
                base = base_type(number)
                word = self.names.typedef(base, base.name) if base.definition else base.name
                return self._words.setdefault(type_id, word)
            case bpf.Alias(Kind.TYPEDEF, name, target):
                word = self.names.typedef((name, target), name)
                return self._words.setdefault(type_id, word)
            case bpf.Composite() | bpf.Enum() | bpf.Forward() as target:
                if target.name or self.names.has_tag(type_id):
                    return self.names.tag(type_id, target)
                if isinstance(target, bpf.Enum):
                    return self._anonymous_enum(type_id, target, level)
                return self.composite(type_id, level, depth + 1)
        raise BtfError(f"type {type_id} has no values")

    def _anonymous_enum(self, type_id: int, enum: bpf.Enum, level: int) -> str:
        """Its enumerators can be declared once; where it comes again, the integer does."""
        form = self._layouts.enumeration(type_id)
        if type_id in self._inlined or not form.values:
            return integer(enum.size, signed=form.signed)
        return self.enum(type_id, level)

    def _result(self, prototype: bpf.Prototype) -> int:
        """The type of a result; qualifiers on it have no meaning."""
        result = prototype.result
        for _ in range(MAX_DEPTH):
            match self._types[result]:
                case bpf.Alias(kind, _name, target) if kind != Kind.TYPEDEF:
                    result = target
                case _:
                    break
        if isinstance(self._types.below(result), bpf.Array | bpf.Prototype):
            raise BtfError(f"a function cannot return type {result}")
        return result

    def _parameters(self, prototype: bpf.Prototype, level: int, depth: int) -> str:
        """The types of parameters. Their names say nothing to C, and are in BTF for functions
        only."""
        self._check_parameters(prototype)
        return (
            ", ".join(
                self._declare(type_id, "", level, depth + 1, (), pointee=False)
                if type_id
                else "..."
                for _name, type_id in prototype.parameters
            )
            or "void"
        )

    def _check_parameters(self, prototype: bpf.Prototype) -> None:
        for number, (_name, type_id) in enumerate(prototype.parameters, 1):
            last = number == len(prototype.parameters)
            if isinstance(self._types.below(type_id), bpf.Void) and (type_id or not last):
                raise BtfError("a parameter cannot be of type void")

    def function(self, type_id: int, function: bpf.Function, *, tagged: bool = True) -> str:
        """The prototype of a function, with the names of its parameters; and its tags."""
        prototype = self._types[function.prototype]
        if not isinstance(prototype, bpf.Prototype):
            raise BtfError(f"function {function.name} has no prototype")
        self._check_parameters(prototype)
        scope = Scope(hidden=self.names.typedefs)
        spelled = []
        for index, (name, target) in enumerate(prototype.parameters):
            parameter = self.declare(target, scope.take(name) if name else "") if target else "..."
            spelled.append(parameter + (self.decl_tags(type_id, index) if tagged else ""))
        # Nothing but `...` is a function of old, of which no parameter is known.
        parameters = ", ".join(spelled) if spelled != ["..."] else ""
        name = self.names.linked(type_id, function.name)
        inner = f"{name}({parameters or ('' if spelled else 'void')})"
        declared = self.declare(self._result(prototype), inner)
        return declared + (self.decl_tags(type_id) if tagged else "")

    def in_place(self, type_id: int) -> bool:
        """Whether an enumeration has been written, within a declaration of something else."""
        return type_id in self._inlined

    def enum(self, type_id: int, level: int = 0) -> str:
        """The whole of an enumeration. C has none without enumerators: then one is made up."""
        enum = self._types[type_id]
        assert isinstance(enum, bpf.Enum)
        self._inlined.add(type_id)
        form = self._layouts.enumeration(type_id)
        tabs = "\t" * level
        has_tag = enum.name or self.names.has_tag(type_id)
        lines = [f"{self.names.tag(type_id, enum) if has_tag else 'enum'} {{"]
        for name, value in form.values or ((f"{identifier(enum.name)}___none", 0),):
            line = f"{tabs}\t{self.names.enumerator(name)} = {constant(value)},"
            self.spend(len(line))
            lines.append(line)
        attribute = f" __attribute__(({form.attribute}))" if form.attribute else ""
        return "\n".join([*lines, f"{tabs}}}{attribute}{self.decl_tags(type_id)}"])

    def composite(
        self, type_id: int, level: int = 0, depth: int = 0, scope: Scope | None = None
    ) -> str:
        """The whole of a struct or union; `scope` has the names of what it lends its members to."""
        if max(level, depth) > MAX_DEPTH:
            raise BtfError(f"type {type_id} is nested too deep")
        composite = self._types[type_id]
        assert isinstance(composite, bpf.Composite)
        plan = self._layouts.plan(type_id)
        named = self.names.has_tag(type_id) and not scope
        scope = scope or Scope()
        tabs = "\t" * level
        lines = [f"{self.names.tag(type_id, composite) if named else keyword(composite)} {{"]
        for item in plan.items:
            line = f"{tabs}\t{self._item(type_id, item, level + 1, depth, scope)};"
            self.spend(level + 4)
            lines.append(line)
        packed = " __attribute__((packed))" if plan.packed else ""
        return "\n".join([*lines, f"{tabs}}}{packed}{self.decl_tags(type_id)}"])

    def _item(
        self, type_id: int, item: Field | Padding, level: int, depth: int, scope: Scope
    ) -> str:
        match item:
            case Padding(bytes=hole) if hole:
                return f"unsigned char {scope.take('__hole')}[{hole}]"
            case Padding(plain, width):
                return f"{plain} : {width}"
        below = self._types.strip(item.type_id)
        if not item.name and isinstance(self._types[below], bpf.Composite):
            words = self._qualifiers(item.type_id)
            return " ".join([*words, self.composite(below, level, depth + 1, scope)])
        name = scope.take(item.name, "anon")
        bits = f" : {item.bits}" if item.bits else ""
        declared = (
            f"{item.plain} {name}"
            if item.plain
            else self._declare(item.type_id, name, level, depth + 1, (), pointee=False)
        )
        return declared + bits + self.decl_tags(type_id, item.index)

    def _qualifiers(self, type_id: int) -> list[str]:
        """The qualifiers of a struct, whatever typedefs they are hidden behind."""
        words = set()
        while isinstance(target := self._types[type_id], bpf.Alias):
            words.add(_QUALIFIERS.get(target.kind, ""))
            type_id = target.target
        return [word for word in ("const", "volatile") if word in words]

    def decl_tags(self, type_id: int, component: int = -1) -> str:
        """The attributes for the tags of a declaration, or of one of its components."""
        tags = map(self._btf.string, self._decl_tags.get((type_id, component), ()))
        return "".join(f" {self._attribute(DECL_TAG, tag)}" for tag in tags)

    def tagged(self, name: str) -> list[int]:
        """The ids of the declarations that have a tag of this name, as a whole."""
        tagged = self._btf.string_offset(name)
        return [
            type_id
            for (type_id, component), tags in self._decl_tags.items()
            if component < 0 and tagged in tags
        ]

    def _attribute(self, macro: str, tag: str) -> str:
        self.tags_used.add(macro)
        self.spend(len(macro) + len(tag))
        return f"{macro}({literal(tag)})"


def _joined(base: str, words: Sequence[str], declarator: str) -> str:
    """Qualifiers come before the type, tags after it."""
    before = [word for word in words if not word.startswith(TYPE_TAG)]
    after = [word for word in words if word.startswith(TYPE_TAG)]
    return " ".join(filter(None, [*before, base, *after, declarator]))


def _decl_tags(btf: Btf) -> dict[tuple[int, int], list[int]]:
    """Where the names of tags are, by what they are on: type id, and component or -1."""
    tags: dict[tuple[int, int], list[int]] = defaultdict(list)
    for target, component, name_at in btf.decl_tags():
        tags[target, component].append(name_at)
    return dict(tags)
