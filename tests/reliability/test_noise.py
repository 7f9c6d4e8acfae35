"""Noise: anything written, at any offset, under any name, renamed from and to anything: each is
answered with an errno that fits, and nothing is amiss."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import random
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.maps import dump, make_map
from support.mounting import Mount, SharedMount
from support.programs import load
from support.renaming import rename
from support.samples import workshop
from support.soaking import Figure, passing

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.map import MapType

# What tells of a trouble inside, and of no mistake of who asked.
TROUBLE = {errno.EIO, errno.ENOTCONN, errno.ECONNABORTED, errno.ENOSYS, errno.ETIMEDOUT}
TEXTS = [
    b"", b"\n", b"\0" * 99, b"\xff\xfe\n", b"[" * 99_999, b'{"a":' * 999, b"1e999999999\n",
    b"0x" + b"f" * (1 << 20), b"9" * (1 << 20) + b"\n", b'"' + b"\\u0041" * 9999 + b'"\n',
    b'"\\ud800"\n', b'"\xed\xa0\x80"\n', b'{"key": 1, "value": ' * 99, b"true\n", b"-1\n", b"{}\n",
    b'{"key": 1, "value": 1}\n' * 999, b"18446744073709551616\n", b"[[1], [2]]\n", b"1_6\n",
    "\u0661\n".encode(), b"key: hex\n", b"value" + b"[]" * 9999 + b": hex\n", b":" * 60_000,
    b"value: struct " + b"a" * 60_000 + b"\n", b" " * 65_000 + b":\n", b"../../../x\n", b"+1\n",
    b'{"repeat": 99999999999}\n', b'{"data": "' + b"00" * 9999 + b'"}\n', b"ff" * 14 + b"\n",
    b'{"a":1,"a":2}\n', b"nan\n", b"\\" * 9999 + b"\n", b"," * 9999, b"lo\n", b"10.0.0.0/8\n",
    b"lo\0\n",
    b"{" + b",".join(b'"f%d": 1' % number for number in range(9999)) + b"}\n",
]  # fmt: skip
OFFSETS = [0, 1, 7, 4095, 1 << 20, (1 << 31) - 1, 1 << 32, 1 << 62, (1 << 63) - 4097, (1 << 63) - 2]
SIZES = [0, 1, 4096, 1 << 17, 1 << 20]
NAMES = [
    b"1", b"01", b"1_6", "\u0661".encode(), b"+1", b"-1", b"-0", b"4294967296", b"9" * 200, b"%31",
    b"%", b"%2", b"%zz", b"%2e%2e", b"%2e", b"%00", b"..%2f..", b"%FF", b"a" * 255, b"a" * 256,
    b".x.swp", b"x~", b"#x#", b"sedAbCdEf", b"tmp12345678", b"cooledit123456", b"4913", b"{}",
    "\u00e9".encode(), "e\u0301".encode(), b"\xff", b"\xed\xa0\x80", b"raw=", b"raw=01000000",
    b"1%#" + b"0" * 32, b"a" * 221 + b"%#" + b"0" * 32, b"a={x=1", b"[" * 200, b"{a=" * 80, b'{"',
    b"10.0.0.0_33", b"10.15.0.0_1_6", b"_8", b"0x1", b"0x", b"1e5", b"true", b"lo", b"1.1", b"self",
    b"a%00", b"1%00", b"%2Ftmp%00",
    b"\x1b[2J", b"a\nb", b"-rf", b"%2Fsys%2Ffs%2Fcgroup", b"maps", b"error_log", b"info", b"pin",
]  # fmt: skip
FLAGS = [os.O_RDONLY, os.O_RDWR, os.O_PATH, os.O_DIRECT, os.O_RDWR | os.O_APPEND, os.O_DIRECTORY,
         os.O_RDWR | os.O_CREAT, os.O_NOFOLLOW, os.O_WRONLY | os.O_TRUNC]  # fmt: skip
RENAMES = [RenameFlags.REPLACE, RenameFlags.NOREPLACE, RenameFlags.EXCHANGE, 4]
# What is done by a right text, or for ever; and what takes a process of its own for each open.
_SPARED = ("frozen", "detach", "graph.svg", "records_pipe")


@dataclass
class Noise:
    """Does anything to anything below `root`."""

    root: Path
    draw: random.Random
    paths: list[Path]
    answers: Counter[str] = field(default_factory=Counter)

    def path(self) -> Path:
        """One that is or was there, or one of a name that may be anything."""
        path = self.draw.choice(self.paths)
        if self.draw.random() < 0.3:
            path = path / os.fsdecode(self.draw.choice(NAMES))
        return path

    def try_one(self) -> None:
        """Do something; it succeeds, or is refused as it should be."""
        kinds: list[Callable[[Path], object]] = [
            self.write, self.write, self.read, self.change, self.remove, self.move, self.list,
        ]  # fmt: skip
        kind, path = self.draw.choice(kinds), self.path()
        try:
            kind(path)
            answer = "done"
        except OSError as error:
            assert error.errno not in TROUBLE, (kind.__name__, path, error)
            answer = errno.errorcode[error.errno or 0]
        self.answers[answer] += 1

    def text(self, path: Path) -> bytes:
        """A text of the kind that harms, any bytes, or what is there with some bytes changed."""
        draw = self.draw
        if draw.random() < 0.5:
            return draw.choice(TEXTS)
        data = bytearray(b"500\n")
        with contextlib.suppress(OSError):
            data = bytearray(path.read_bytes()[:4096] or data)
        for _ in range(draw.randrange(4)):
            at = draw.randrange(len(data) + 1)
            data[at : at + draw.randrange(2)] = draw.choice(
                [b'"', b"{", b"]", b"9", draw.randbytes(2)]
            )
        return bytes(data)

    def write(self, path: Path) -> None:
        draw = self.draw
        if path.name in _SPARED:
            return
        data = self.text(path)
        flags = draw.choice([os.O_TRUNC, 0, os.O_APPEND, os.O_CREAT, os.O_CREAT | os.O_EXCL])
        with opened(path, os.O_WRONLY | flags) as fd:
            for _ in range(draw.randrange(1, 4)):
                part = data[: draw.choice([0, 1, 7, len(data)])]
                match draw.randrange(5):
                    case 0:
                        os.pwrite(fd, part, draw.choice(OFFSETS))
                    case 1:
                        os.ftruncate(fd, draw.choice(OFFSETS))
                    case 2:
                        os.lseek(fd, draw.choice(OFFSETS), draw.choice([0, 2, 3, 4]))
                    case _:
                        os.write(fd, part)

    def read(self, path: Path) -> None:
        draw = self.draw
        if path.name in _SPARED:
            return
        with opened(path, draw.choice(FLAGS)) as fd, contextlib.suppress(ValueError):
            match draw.randrange(9):
                case 0:
                    mmap.mmap(fd, 4096, draw.choice([mmap.MAP_PRIVATE, mmap.MAP_SHARED])).close()
                case 1:
                    fcntl.ioctl(fd, draw.choice([0x5401, 0x541B, 0x80086601]), bytes(64))
                case 2:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                case 3:
                    os.posix_fallocate(fd, draw.choice(OFFSETS), 1)
                case 4:
                    one, other = socket.socketpair()
                    with one, other:
                        one.setblocking(False)
                        os.sendfile(one.fileno(), fd, 0, 4096)
                case 5:
                    poll = select.poll()
                    poll.register(fd, 0xFFFF)
                    poll.poll(0)
                case 6:
                    os.copy_file_range(fd, fd, 100, 0, 1 << 20)
                case _:
                    os.pread(fd, draw.choice(SIZES), draw.choice(OFFSETS))

    def change(self, path: Path) -> None:
        draw = self.draw
        match draw.randrange(5):
            case 0:
                os.setxattr(path, draw.choice(["user.x", "user.bpf.key", "trusted.y"]), b"1" * 5000)
            case 1:
                os.getxattr(path, draw.choice(["user.bpf.key", "user.x", "security.z"]))
            case 2:
                os.utime(path, (draw.choice([0, -1, 1e10]), 0))
            case 3:
                os.truncate(path, draw.choice(OFFSETS))
            case _:
                os.listxattr(path)

    def remove(self, path: Path) -> None:
        draw = self.draw
        if path in self.paths and path.parent == self.root:  # a pin stays, for the next to be done
            return
        match draw.randrange(6):
            case 0:
                path.unlink()
            case 1:
                path.rmdir()
            case 2:
                path.mkdir()
            case 3:
                os.mknod(path, draw.choice([0o10600, 0o100600, 0o140600]))
            case _:
                targets = ["x", "/", "..", "\udcff" * 4000, *map(str, self.paths)]
                path.symlink_to(draw.choice(targets))

    def move(self, path: Path) -> None:
        target = self.path()
        if self.draw.randrange(5):
            flags = self.draw.choice(RENAMES)
            if path.parent != self.root or flags == RenameFlags.NOREPLACE:
                rename(path, target, RenameFlags(flags))
        else:
            os.link(path, target, follow_symlinks=False)

    def list(self, path: Path) -> None:
        with opened(path, os.O_DIRECTORY) as fd:
            for _ in range(3):
                with contextlib.suppress(OSError):
                    os.lseek(fd, self.draw.choice(OFFSETS), os.SEEK_SET)
                os.listdir(fd)


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor of a file."""
    fd = os.open(path, flags | os.O_NONBLOCK, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def everything(mount: Mount, *hidden: str) -> list[Path]:
    """All paths that are shown, and some that are not listed: none of what others have."""
    return [mount.path, *sorted(mount.path.rglob("*")), *(mount.path / name for name in hidden)]


@pytest.mark.soak(short=3, share=3)
def test_anything_is_answered(shared: SharedMount, span: float, figure: Figure) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)  # shown when it fails
    with shared.borrowed() as mount, workshop(mount.source) as shop, load() as program:
        for kind in MapType:
            mount.pin(f"of_{kind.name.lower()}", shop.sample(kind))
        for name, key, value in (("config", "u32", "config"), ("text", "text", "pair")):
            mount.pin(name, make_map(key=key, value=value)).close()
        mount.pin("program", program)
        (mount.source / "directory/below").mkdir(parents=True)
        (mount.source / "link").symlink_to("directory")
        noise = Noise(mount.path, random.Random(seed), everything(
            mount, ".by-id", f".by-id/programs/{program.info.id}",
            f".by-id/programs/{program.info.id}/pin", "config/.x.swp", "text/entries/x~",
        ))  # fmt: skip
        for _ in passing(span):
            noise.try_one()
        assert (mount.path / "program/info").read_text().startswith("type: ")
    figure("requests of noise", noise.answers.total())
    figure("answers", ", ".join(f"{name} {n}" for name, n in noise.answers.most_common()))


@pytest.mark.parametrize("name", ["entries/1", "entries/9", "entries.jsonl", "format", ".x.swp"])
@pytest.mark.parametrize("kind", [MapType.HASH, MapType.PERCPU_ARRAY], ids=lambda kind: kind.name)
def test_what_is_refused_changes_nothing(mounted: Mount, kind: MapType, name: str) -> None:
    made = mounted.pin("sample", make_map(kind, value="config", max_entries=4))
    file, shown = mounted.path / "sample" / name, mounted.path / "sample/format"
    for text in TEXTS:
        before, formats = dump(made), shown.read_text()
        try:
            file.write_bytes(text)
            if name.startswith("."):
                file.rename(shown)
        except OSError as error:
            assert error.errno in (errno.EINVAL, errno.EPERM, errno.ENOENT), (text[:40], error)
            assert (dump(made), shown.read_text()) == (before, formats), text[:40]
    log = mounted.error_log("sample")
    assert log and all(line.isprintable() for line in log.splitlines())
