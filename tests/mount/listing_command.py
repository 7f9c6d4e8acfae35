"""The command, which logs at the end of each listing how many inodes the kernel refers to:
WAY SOURCE MOUNTPOINT -f.

WAY is `stock`, or `ordinary` for what happens where no entry can be plain.
"""

from __future__ import annotations

import logging
import sys

import fusefs.cli
import fusefs.operations
from fusefs.operations import Operations


def main() -> None:
    """Run the command."""
    if sys.argv[1] == "ordinary":
        setattr(fusefs.operations, "plain_entry", lambda: None)  # noqa: B010 - as mypy wants it
    end = Operations.releasedir

    async def releasedir(self: Operations, fh: int) -> None:
        await end(self, fh)
        logging.getLogger("fusefs").info("%d inodes", len(self._inodes))

    setattr(Operations, "releasedir", releasedir)  # noqa: B010
    fusefs.cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
