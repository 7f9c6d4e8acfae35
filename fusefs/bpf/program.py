"""Programs: what the kernel tells of them."""

from __future__ import annotations

import ctypes
import struct

from fusefs.bpf.object import Object, buffer
from fusefs.bpf.syscall import Command


class ProgramInfo(ctypes.Structure):
    """`struct bpf_prog_info`; the pointers to arrays are left 0 unless they are asked for."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("gpl_compatible", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("nr_jited_ksyms", ctypes.c_uint32),
        ("nr_jited_func_lens", ctypes.c_uint32),
        ("jited_ksyms", ctypes.c_uint64),
        ("jited_func_lens", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", ctypes.c_uint32),
        ("nr_line_info", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("jited_line_info", ctypes.c_uint64),
        ("nr_jited_line_info", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("jited_line_info_rec_size", ctypes.c_uint32),
        ("nr_prog_tags", ctypes.c_uint32),
        ("prog_tags", ctypes.c_uint64),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
        ("attach_btf_obj_id", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
    )


# Arrays of the info call that are worth a line: the field with their length, and an element. The
# addresses of functions are the kernel's secret; code and line information are not for `info`.
_ARRAYS = {
    "map_ids": ("nr_map_ids", struct.Struct("=I")),
    "jited_func_lens": ("nr_jited_func_lens", struct.Struct("=I")),
    "prog_tags": ("nr_prog_tags", struct.Struct("=8s")),
}


class Program(Object):
    """An open program."""

    kind = "program"
    by_id = Command.PROG_GET_FD_BY_ID
    next_id = Command.PROG_GET_NEXT_ID

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.info = self.fill(ProgramInfo())

    def arrays(self) -> dict[str, list[int | str]]:
        """The ids of the maps that it uses, and the length and tag of each of its functions.

        Raises OSError.
        """
        asked, rooms = ProgramInfo(), {}
        for name, (count, element) in _ARRAYS.items():
            length: int = getattr(self.info, count)
            room = rooms[name] = buffer(length * element.size)
            setattr(asked, count, length)
            setattr(asked, name, ctypes.addressof(room))
        self.fill(asked)
        return {
            name: [
                item.hex() if isinstance(item, bytes) else item
                for (item,) in element.iter_unpack(
                    ctypes.string_at(rooms[name], getattr(self.info, count) * element.size)
                )
            ]
            for name, (count, element) in _ARRAYS.items()
        }
