"""The command, in which nothing that was seen is recent enough to be shown, as on a machine that
has no time for it: SOURCE MOUNTPOINT -f."""

from __future__ import annotations

import sys

import fusefs.cli
from fusefs.tree.sighting import Sighting

if __name__ == "__main__":
    setattr(Sighting, "fresh", False)  # noqa: B010 - as mypy wants it
    fusefs.cli.main(sys.argv[1:])
