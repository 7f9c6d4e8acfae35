"""The types of a map's keys and values, and the codecs that they make without any format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from fusefs.bpf.btf import Btf, BtfError, DataSection, Kind, kernel_btf
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map
from fusefs.bpf.program import Program
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec, raw_codec, type_name
from fusefs.text.lpm import lpm_codec
from fusefs.tree.built_in import key_codec, value_codec


class MapBtf:
    """What the BTF of a map says of it. The BTF itself is read when it is needed.

    `id` is that of its BTF object, 0 without any. `key_type` and `value_type` are C types, or None
    without BTF; `problem` says why there is none although the map has BTF. `section` is the name of
    the data section that the value is, or None.
    """

    def __init__(self, bpf_map: Map, files: Sequence[Btf] = ()) -> None:
        """`files` are searched for types, after the map's own BTF, or that of programs that use the
        map if it has none, and the kernel's."""
        info = bpf_map.info
        self.id: int = info.btf_id
        self._kernel_id: int = info.btf_vmlinux_id
        self._map_id: int = info.id
        self._files = files
        self.key_type: str | None = None
        self.value_type: str | None = None
        self.problem: str | None = None
        self.section: str | None = None
        self.key: Codec = raw_codec(info.key_size)
        self.value: Codec = raw_codec(info.value_size)
        self.key_id: int = info.btf_key_type_id
        self.value_id: int = info.btf_value_type_id
        # struct_ops: the value is a struct of the kernel or of one of its modules.
        self.kernel_value_id: int = info.btf_vmlinux_value_type_id
        self.key = key_codec(bpf_map) or self.key
        types = (self._compile_key, info.key_size), (self._compile_value, info.value_size)
        with self._noting():
            own = self.own()
            for compile_one, size in types:
                with self._noting():
                    compile_one(own, size)
        if bpf_map.prefixes:
            self.key = lpm_codec(self.key)
        self.value = value_codec(bpf_map) or self.value

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """What cannot be read within the block is a problem."""
        try:
            yield
        except (BtfError, PermissionError) as error:
            self.problem = f"the BTF of this map cannot be read: {error}"

    def _compile_key(self, btf: Btf | None, size: int) -> None:
        if self.key_id and btf:
            self.key, self.key_type = _fitting(btf, self.key_id, size)

    def _compile_value(self, btf: Btf | None, size: int) -> None:
        if self.value_id and btf:
            self.value, self.value_type = _fitting(btf, self.value_id, size)
            value_type = btf.type(self.value_id)
            if isinstance(value_type, DataSection):
                self.section = value_type.name
        if kernel := self.kernel():
            self.value, self.value_type = _fitting(kernel, self.kernel_value_id, size)

    def own(self) -> Btf | None:
        """The map's own BTF, or None without any. Raises BtfError."""
        return _by_id(self.id)

    def kernel(self) -> Btf | None:
        """The BTF that the value's type is in, where that is not the map's own."""
        return _by_id(self._kernel_id) if self.kernel_value_id else None

    def find(self, kind: Kind, name: str) -> tuple[Btf, int] | None:
        """The type of this kind and name, and the BTF that it is in. Raises BtfError."""
        kinds = (Kind.ENUM, Kind.ENUM64) if kind == Kind.ENUM else (kind,)
        for btf in self._blobs():
            if btf and (type_id := btf.find(name, *kinds)):
                return btf, type_id
        return None

    def _blobs(self) -> Iterator[Btf | None]:
        yield self.own()
        if not self.id:  # loaders give rings none, as the kernel takes none for some types
            yield from map(_by_id, _of_programs(self._map_id))
        yield kernel_btf()
        yield from self._files


def _of_programs(map_id: int) -> Iterator[int]:
    """The ids of the BTF of the programs that use a map."""
    seen = set()
    for program_id in Program.ids():
        try:
            with Program.from_id(program_id) as program:
                btf_id: int = program.info.btf_id
                used = map_id in program.map_ids()
        except FileNotFoundError:
            continue  # it has been unloaded
        if used and btf_id and btf_id not in seen:
            seen.add(btf_id)
            yield btf_id


def _by_id(btf_id: int) -> Btf | None:
    if not btf_id:
        return None
    with BtfObject.from_id(btf_id) as btf_object:
        return btf_object.parse()


def _fitting(btf: Btf, type_id: int, size: int) -> tuple[Codec, str]:
    codec = compile_codec(btf, type_id)
    if codec.size != size:
        raise BtfError(f"type {type_id} has {codec.size} bytes, and the map {size}")
    return codec, type_name(btf, type_id)
