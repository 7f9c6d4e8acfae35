"""Hosts of a fleet, all on this machine: each has a bpffs, a mount of it and an sshd; and what
reaches them, ssh, sshfs and autofs.

Nothing listens but on 127.0.0.1, and nothing of /etc/ssh, of ~/.ssh and of /etc/auto.* is used.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from support.mounting import Mount, mounted, mounted_bpffs, mounts_at, unmount
from support.shell import ENVIRONMENT, checked, run
from support.waiting import eventually

# Where sshd wants an empty directory (--with-privsep-path of Debian's).
_EMPTY = Path("/run/sshd")


@functools.cache
def sshfs_options() -> tuple[str, ...]:
    """The options that docs/fleet.md has, as far as this sshfs knows them."""
    needed = ("direct_io", "sshfs_sync", "dir_cache=no")
    # Since 3.7.6, and where distributions have mended CVE-2026-47187.
    return (*needed, *(o for o in ("no_contain_symlinks",) if o in run(["sshfs", "--help"]).stdout))


@dataclass(frozen=True)
class Host:
    """A mount on a host, and its name for ssh."""

    name: str
    mount: Mount


class Fleet:
    """Hosts, by their names. `directory` is where all files are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts: dict[str, Host] = {}
        self._numbers = itertools.count()
        for key in ("host_key", "user_key"):
            checked("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / key)
        # Others than root have to read it, when they log in.
        directory.chmod(0o755)
        (directory / "user_key.pub").chmod(0o644)
        self._config = directory / "ssh_config"
        self.ssh = directory / "ssh"
        self.ssh.write_text(f'#!/bin/sh\nexec ssh -F {self._config} "$@"\n')
        self.ssh.chmod(0o755)

    def add(self, stack: ExitStack, name: str, *options: str) -> Host:
        """A host with a mount, which has these options; `NAME-guest` logs in as nobody there."""
        source = stack.enter_context(mounted_bpffs())
        source.chmod(0o755)
        mount = stack.enter_context(mounted(source, options))
        port = stack.enter_context(_sshd(self.directory, name))
        with self._config.open("a") as config:
            for alias, user in ((name, "root"), (f"{name}-guest", "nobody")):
                config.write(
                    f"Host {alias}\nHostName 127.0.0.1\nPort {port}\nUser {user}\n"
                    f"IdentityFile {self.directory}/user_key\nIdentitiesOnly yes\n"
                    "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
                )
        self.hosts[name] = Host(name, mount)
        return self.hosts[name]

    @contextlib.contextmanager
    def sshfs(self, host: Host, options: Sequence[str] = (), login: str = "") -> Iterator[Path]:
        """The mount of a host, mounted here by sshfs."""
        path = self.directory / f"sshfs-{next(self._numbers)}"
        path.mkdir()
        given = ",".join((f"ssh_command={self.ssh}", *(options or sshfs_options())))
        where = f"{login or host.name}:{host.mount.path}"
        try:
            checked("sshfs", "-o", given, where, path)
            yield path
        finally:
            unmount(path)

    @contextlib.contextmanager
    def autofs(self, idle: int) -> Iterator[Path]:
        """A directory in which autofs mounts each host when it is asked for, and unmounts it when
        nobody has for `idle` seconds."""
        top, pid = self.directory / "bpf", self.directory / "automount.pid"
        top.mkdir()
        options = ",".join((f"ssh_command={self.ssh}", *sshfs_options()))
        lines = [
            f"{name} -fstype=fuse.sshfs,{options} {name}:{host.mount.path}\n"
            for name, host in self.hosts.items()
        ]
        (self.directory / "auto.bpf").write_text("".join(lines))
        master = self.directory / "auto.master"
        master.write_text(f"{top} file:{self.directory}/auto.bpf --timeout={idle}\n")
        # Of a session of its own: the kernel takes those of its process group for automount itself.
        process = subprocess.Popen(
            ["automount", "--foreground", "--dont-check-daemon", "--pid-file", pid, master],
            env=ENVIRONMENT,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.directory / "automount.log").open("wb"),
        )
        try:
            eventually("autofs is there", lambda: mounts_at(top) or process.poll() is not None)
            assert process.poll() is None, (self.directory / "automount.log").read_text()
            yield top
        finally:
            process.terminate()  # which unmounts what is not in use
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            for name in self.hosts:
                unmount(top / name)
            unmount(top)


_SSHD: Mapping[str, str] = {
    "ListenAddress": "127.0.0.1",
    "HostKey": "{directory}/host_key",
    "PidFile": "none",
    "AuthorizedKeysFile": "{directory}/user_key.pub",
    "StrictModes": "no",  # the directories above are anybody's
    "UsePAM": "no",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "PermitRootLogin": "prohibit-password",
    "Subsystem": "sftp internal-sftp",  # those who have no shell are served, too
}


@contextlib.contextmanager
def _sshd(directory: Path, name: str) -> Iterator[int]:
    """A server; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    config, log = directory / f"sshd_{name}", directory / f"sshd_{name}.log"
    lines = [f"{word} {value.format(directory=directory)}\n" for word, value in _SSHD.items()]
    config.write_text("".join([f"Port {port}\n", *lines]))
    missing = not _EMPTY.exists()
    _EMPTY.mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-f", config, "-E", log], env=ENVIRONMENT, stdin=subprocess.DEVNULL
    )
    try:
        eventually("sshd listens", lambda: log.exists() and "listening" in log.read_text())
        yield port
    finally:
        process.terminate()
        process.wait(10)
        if missing:
            with contextlib.suppress(OSError):
                _EMPTY.rmdir()


@contextlib.contextmanager
def fleet(directory: Path) -> Iterator[Fleet]:
    """Two hosts: `alpha`, whose mount is root's, and `beta`, whose mount is for all users."""
    with ExitStack() as stack:
        made = Fleet(directory)
        made.add(stack, "alpha")
        made.add(stack, "beta", "-o", "allow_other")
        os.chmod(made.hosts["beta"].mount.source, 0o1777)
        yield made
