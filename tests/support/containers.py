"""What a container is, without an engine: namespaces, a root directory of its own, and volumes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.mounting import nested, temporary_directory, unmount
from support.shell import ENVIRONMENT, checked, run

_CHECKOUT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
# In the new namespaces: make a root, which is read-only, with the volumes in it, and go there.
# Arguments: the root, how many volumes there are, HOST_PATH PATH of each, and the command.
_ENTER = """
set -eu
root=$1 count=$2; shift 2
for ((n = 0; n < count; n++)); do volume[n]=$1 place[n]=$2; shift 2; done
findmnt -rno TARGET -t fuse.bpf-fusefs | while read -r mounted; do # see LET_OTHERS_GO
    case $mounted in
    "${volume[count - 1]}"/*) ;; # is shared with the host
    *) umount -l "$mounted" ;;
    esac
done
findmnt -rno TARGET | while read -r mounted; do # pivot_root(2) takes no shared ones
    case " ${volume[*]} " in
    *" $mounted "*) ;;
    *) mount --make-private "$mounted" 2>/dev/null || true ;; # another may hide it
    esac
done
mount --bind / "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs run "$root/run"
mount --bind "$CHECKOUT" "$root$CHECKOUT"
mount --rbind /dev "$root/dev"
mount -t sysfs sys "$root/sys"
mount -t proc proc "$root/proc"
for ((n = 0; n < count; n++)); do
    mkdir -p "$root${place[n]}"
    mount --rbind "${volume[n]}" "$root${place[n]}"
done
cd "$root"
pivot_root . .
umount -l .
cd /
exec "$@"
"""
# The namespaces that a container always has; those that it may share with the host come on top.
_NAMESPACES = ("--mount", "--ipc", "--uts", "--cgroup")


@dataclass(frozen=True)
class Container:
    """A running container: the process that waits for it, and its first one."""

    waits: subprocess.Popen[bytes]
    pid: int
    _log: Path

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()


@contextlib.contextmanager
def shared_directory(path: Path) -> Iterator[Path]:
    """A directory whose mounts are shared with those that bind it, as are all where systemd is the
    first process."""
    path.mkdir()
    with nested(path, ["--bind", path]):
        checked("mount", "--make-shared", path)
        try:
            yield path
        finally:
            for inner in path.iterdir() if path.is_dir() else ():
                unmount(inner)
                inner.rmdir()


@contextlib.contextmanager
def container(
    command: Sequence[str], volumes: Mapping[Path, str], namespaces: Sequence[str] = ()
) -> Iterator[Container]:
    """A container that runs a command, with directories of the host at other paths."""
    with temporary_directory() as parent:
        root = parent / "root"
        root.mkdir()
        pairs = [str(path) for pair in volumes.items() for path in pair]
        with (parent / "log").open("wb") as log:
            process = subprocess.Popen(
                ["unshare", *_NAMESPACES, *namespaces, "--propagation", "unchanged", "--fork",
                 "--kill-child", "bash", "-c", _ENTER, "bash", str(root), str(len(volumes)), *pairs,
                 *command],
                env={**ENVIRONMENT, "CHECKOUT": str(_CHECKOUT),
                     "PATH": f"{_BIN}:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        try:
            pid = 0
            while not pid and process.poll() is None:
                pid = int(run(["pgrep", "-P", str(process.pid)]).stdout or 0)
            yield Container(process, pid, parent / "log")
        finally:
            process.kill()
            process.wait()
