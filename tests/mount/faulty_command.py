"""The command with a fault that can be switched on: FAULTS SOURCE MOUNTPOINT -f.

FAULTS is a file that holds the name of a handler of `Operations`, or nothing. What that handler
calls then raises RuntimeError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fusefs.bpf.bpffs
import fusefs.cli
import fusefs.inodes
import fusefs.opened
import fusefs.operations
import fusefs.tree.editing
import fusefs.tree.entries
import fusefs.tree.entries_directory
import fusefs.tree.files
import fusefs.tree.mirror

FAULTS = Path(sys.argv[1])

# What each handler calls.
CALLED: dict[str, tuple[object, str]] = {
    "lookup": (fusefs.tree.mirror.Mirror, "lookup"),
    "forget": (fusefs.inodes.InodeTable, "forget"),
    "getattr": (fusefs.tree.mirror.Mirror, "attributes"),
    "setattr": (fusefs.tree.mirror.Mirror, "change"),
    "readlink": (fusefs.tree.mirror.MirrorLink, "target"),
    "getxattr": (fusefs.tree.entries.Entry, "extended"),
    "listxattr": (fusefs.operations, "refusal"),
    "statfs": (fusefs.tree.mirror.Mirror, "statvfs"),
    "mkdir": (fusefs.tree.mirror.Mirror, "mkdir"),
    "mknod": (fusefs.operations, "refusal"),
    "symlink": (fusefs.tree.mirror.Mirror, "symlink"),
    "link": (fusefs.operations, "refusal"),
    "unlink": (fusefs.tree.entries_directory.Entries, "unlink"),
    "rmdir": (fusefs.tree.mirror.Mirror, "rmdir"),
    "rename": (fusefs.tree.mirror.Mirror, "rename"),
    "opendir": (fusefs.tree.mirror.Mirror, "enter"),
    "readdir": (fusefs.bpf.bpffs.Directory, "names"),
    "open": (fusefs.tree.entries.Entry, "open"),
    "create": (fusefs.tree.entries_directory.Entries, "create"),
    "read": (fusefs.tree.files.Reading, "read"),
    "poll": (fusefs.operations.Operations, "_file"),
    "write": (fusefs.tree.editing.Editing, "write"),
    "flush": (fusefs.tree.editing.Editing, "flush"),
    "fsync": (fusefs.tree.editing.Editing, "flush"),
    "release": (fusefs.tree.files.Reading, "close"),
    "releasedir": (fusefs.opened.Opened, "end_listing"),
}


def fail_if_asked() -> None:
    """Raise when this is called, at whatever distance, by the handler that is to fail."""
    wanted = FAULTS.read_text()
    frame = sys._getframe(1) if wanted else None
    while frame:
        code = frame.f_code
        if code.co_name == wanted and code.co_filename == fusefs.operations.__file__:
            raise RuntimeError(f"a fault in {wanted}")
        frame = frame.f_back


def failing(call: Callable[..., Any]) -> Callable[..., Any]:
    """A call that fails when it is asked to."""

    def called(*arguments: Any, **named: Any) -> Any:
        fail_if_asked()
        return call(*arguments, **named)

    return called


def main() -> None:
    """Run the command."""
    for owner, name in set(CALLED.values()):
        setattr(owner, name, failing(getattr(owner, name)))
    fusefs.cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
