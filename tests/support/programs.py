"""Programs made of instructions, without a compiler."""

from __future__ import annotations

from fusefs.bpf.program import Program

# r0 = 0; exit
NOTHING = bytes.fromhex("b700000000000000" "9500000000000000")
SOCKET_FILTER, XDP = 1, 6


def load(code: bytes = NOTHING, kind: int = SOCKET_FILTER, name: str = "sample") -> Program:
    """A program of these instructions. What the verifier has against it is in the error."""
    return Program.load(kind, code, name=name)
