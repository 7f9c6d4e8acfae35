"""What a user does to the files of a mount or of bpffs, each function one thing. They raise
OSError."""

from __future__ import annotations

import errno
import os


def _at(path: str, name: str) -> str:
    return os.path.join(path, name) if name else path


def read(path: str, name: str = "") -> bytes:
    """Some of a file."""
    fd = os.open(_at(path, name), os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def write(path: str, name: str, text: str, flags: int = os.O_TRUNC) -> None:
    """Write a file, as `echo` does; `flags` are beside O_WRONLY."""
    fd = os.open(_at(path, name), os.O_WRONLY | flags, 0o644)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def open_to_write(path: str, name: str) -> None:
    os.close(os.open(_at(path, name), os.O_WRONLY))


def open_to_read(path: str, name: str) -> None:
    os.close(os.open(_at(path, name), os.O_RDONLY | os.O_NONBLOCK))


def list_names(path: str, name: str = "") -> list[str]:
    return sorted(os.listdir(_at(path, name)))


def look(path: str, name: str) -> None:
    os.lstat(_at(path, name))


def size(path: str, name: str) -> None:
    """Learn how long what is in a file is: a size of 0 tells nothing."""
    if not os.lstat(_at(path, name)).st_size:
        raise PermissionError(errno.EACCES, "not told")


def link_target(path: str, name: str = "") -> str:
    return os.readlink(_at(path, name))


def remove(path: str, name: str = "") -> None:
    os.unlink(_at(path, name))


def remove_directory(path: str, name: str = "") -> None:
    os.rmdir(_at(path, name))


def rename(path: str, name: str, new_name: str) -> None:
    os.rename(_at(path, name), _at(path, new_name))


def symlink(path: str, name: str, target: str) -> None:
    os.symlink(target, _at(path, name))


def replace_link(path: str, name: str, target: str) -> None:
    """As `ln -sfn` does."""
    scratch = os.path.join(path, os.path.dirname(name), "CuAbCdEf")
    os.symlink(target, scratch)
    try:
        os.rename(scratch, _at(path, name))
    except OSError:
        os.unlink(scratch)
        raise


def save(path: str, directory: str, name: str, text: str) -> None:
    """As `sed -i` does."""
    scratch = os.path.join(path, directory, "sedAbCdEf")
    with open(scratch, "x") as file:
        file.write(text)
    try:
        os.rename(scratch, os.path.join(path, directory, name))
    except OSError:
        os.unlink(scratch)
        raise


def get_attribute(path: str, name: str) -> None:
    os.getxattr(_at(path, name), "user.bpf.key")
