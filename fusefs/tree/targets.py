"""Symbolic links to objects: the text that leads to one, and the object that a text leads to."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.credentials import Caller, acting_as
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.text.errors import Refused, clip
from fusefs.tree.context import BY_ID, Context
from fusefs.tree.node import refusal

# The directory of each kind of object in `.by-id/`.
KINDS: dict[str, type[Object]] = {
    "maps": Map,
    "programs": Program,
    "links": Link,
    "btfs": BtfObject,
}
# What opening a path in bpffs says of what is no object; EPERM of a name with a dot, EINVAL of a
# link.
_NO_OBJECT = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EXDEV, errno.EPERM, errno.EINVAL,
}  # fmt: skip
_DIRECTORIES = {kind: name for name, kind in KINDS.items()}


def path_by_id(kind: type[Object], object_id: int) -> tuple[str, ...]:
    """The names that lead to an object from the root of the mount."""
    return BY_ID, _DIRECTORIES[kind], str(object_id)


def parse_id(text: str) -> int | None:
    """The id that a name in `.by-id/KIND/` is, or None when it is none."""
    plain = text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
    return int(text) if plain and len(text) <= 10 and int(text) < 1 << 32 else None


def text_to(
    context: Context, base: Sequence[str] | None, kind: type[Object], object_id: int
) -> str:
    """The text of a symbolic link in the directory `base` of the mount that leads to an object. It
    is relative, and so good wherever the mount is seen, unless it is not known where that is."""
    to_root = [context.mountpoint] if base is None else [".."] * len(base)
    return "/".join((*to_root, *path_by_id(kind, object_id)))


def open_target(context: Context, base: Sequence[str] | None, text: str, caller: Caller) -> Object:
    """Open the object to which a symbolic link of this text would lead, were it in the directory
    `base` of the mount; with the caller's rights.

    Raises `Refused` when that is no object, and OSError, as EACCES when the caller may not.
    """
    names = names_below(context, base, text)
    match names:
        case [name, directory, number] if name == BY_ID:
            if not caller.is_root:
                raise refusal(errno.EACCES, f"{BY_ID} is root's")
            kind, object_id = KINDS.get(directory), parse_id(number)
            if kind is None or object_id is None:
                raise Refused(f"{'/'.join(names)} is no object")
            try:
                return kind.from_id(object_id)
            except FileNotFoundError:
                raise Refused(f"there is no {kind.kind} with the id {object_id}") from None
    try:
        with acting_as(caller):
            return context.root.open_path(names)
    except OSError as error:
        if error.errno in _NO_OBJECT:
            where = clip("/".join(names) or "/")
            if names[-2:-1] == ["entries"]:
                reason = "is a slot: name what it leads to, which readlink(1) tells"
            else:
                reason = "in this mount is no map and no program"
            raise Refused(f"{where} {reason}") from None
        raise


def place_of(context: Context, base: Sequence[str] | None, text: str) -> str:
    """The absolute path to which a symbolic link of this text leads from the directory `base` of
    the mount. Of `..` only those at its beginning are taken: behind a name that is a symbolic link
    itself, they mean something else. Raises `Refused`."""
    if text.startswith("/"):
        return "/" + "/".join(_parts(text))
    if base is None:
        raise Refused("this directory was moved, and where to is not known: look it up again")
    # As any symbolic link, it begins at the directory that it is in.
    way = [*_parts(context.mountpoint), *base]
    names = _parts(text)
    while names[:1] == [".."]:
        way, names = way[:-1], names[1:]
    return "/" + "/".join((*way, *names))


def names_below(context: Context, base: Sequence[str] | None, text: str) -> list[str]:
    """The names that lead from the root of the mount to where a link leads."""
    names, top = _parts(place_of(context, base, text)), _parts(context.mountpoint)
    if names[: len(top)] != top:
        raise Refused(f"{clip(text)} is not in this mount, which is {context.mountpoint}")
    return names[len(top) :]


def _parts(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]
