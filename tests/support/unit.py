"""The unit for systemd, docs/bpf-fusefs.service."""

from __future__ import annotations

from pathlib import Path

UNIT = Path(__file__).parents[2] / "docs/bpf-fusefs.service"


def settings(name: str) -> list[str]:
    """What the unit sets a name to, word by word."""
    lines = [line.partition("=") for line in UNIT.read_text().splitlines()]
    return [word for key, _, value in lines if key == name for word in value.split()]


CAPABILITIES = settings("CapabilityBoundingSet")
