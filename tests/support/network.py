"""Network namespaces, and an XDP program in one."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.shell import checked, run

PROGRAMS = Path(__file__).parents[1] / "programs"


@dataclass(frozen=True)
class Network:
    """Two network namespaces, joined by a pair of interfaces called `veth0`."""

    client: str
    server: str
    client_address = "10.99.0.1"
    server_address = "10.99.0.2"

    def ping(self, packets: int) -> None:
        """Send so many packets from the client, and have an answer to each."""
        said = checked(
            "ip", "netns", "exec", self.client,
            "ping", "-q", "-c", str(packets), "-i", "0.01", "-W", "2", self.server_address,
        )  # fmt: skip
        assert f"{packets} received" in said, said


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network of one's own."""
    net = Network(f"fusefs-{os.getpid()}-c", f"fusefs-{os.getpid()}-s")
    names = (net.client, net.server)
    try:
        for name in names:
            checked("ip", "netns", "add", name)
        checked(
            "ip", "-n", net.client, "link", "add", "veth0", "type", "veth",
            "peer", "name", "veth0", "netns", net.server,
        )  # fmt: skip
        for name, address in zip(names, (net.client_address, net.server_address), strict=True):
            checked("ip", "-n", name, "address", "add", f"{address}/24", "dev", "veth0")
            checked("ip", "-n", name, "link", "set", "veth0", "up")
        yield net
    finally:
        for name in names:
            run(["ip", "netns", "delete", name])


def compile_program(name: str, directory: Path) -> Path:
    """Compile one of the programs beside the tests, with types."""
    result = directory / f"{name}.o"
    headers = f"/usr/include/{platform.machine()}-linux-gnu"
    source = PROGRAMS / f"{name}.bpf.c"
    checked("clang", "-O2", "-g", "-target", "bpf", f"-I{headers}", "-c", source, "-o", result)
    return result


def pin_attached(net: Network, program: Path, link: Path) -> None:
    """Attach a pinned XDP program to the server's interface, and pin the link."""
    script = Path(__file__).with_name("attach_xdp.py")
    checked("ip", "netns", "exec", net.server, sys.executable, script, program, link)
