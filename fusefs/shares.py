"""How many files of a mount users may have open.

Each takes a descriptor of this process, or a few; and a user who had them all would keep everybody
else from opening anything, root too.
"""

from __future__ import annotations

import errno
import resource
from collections import Counter

from fusefs.bpf.credentials import Caller
from fusefs.tree.node import refusal

# All but root together may have one in so many descriptors, and each one in so many of those.
_OTHERS, _EACH = 2, 4


class Shares:
    """The open files and directories of all but root, of whom there is no limit but the process's
    own."""

    def __init__(self) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._others = limit // _OTHERS
        self._each = self._others // _EACH
        self._owners: dict[int, int] = {}  # by file handle
        self._counts: Counter[int] = Counter()

    def check(self, caller: Caller) -> None:
        """Raise OSError, EMFILE, for who may not have one more."""
        if caller.is_root:
            return
        if self._counts[caller.uid] >= self._each or len(self._owners) >= self._others:
            raise refusal(errno.EMFILE, f"uid {caller.uid} has too many files open")

    def take(self, fh: int, caller: Caller) -> None:
        """Note one that was opened."""
        if not caller.is_root:
            self._owners[fh] = caller.uid
            self._counts[caller.uid] += 1

    def give_back(self, fh: int) -> None:
        """One was closed."""
        owner = self._owners.pop(fh, None)
        if owner is not None:
            self._counts[owner] -= 1
            if not self._counts[owner]:
                del self._counts[owner]
