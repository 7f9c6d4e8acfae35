"""Files that take commands and show nothing: `push`, `detach`, `pin`."""

from __future__ import annotations

import os

from fusefs.bpf.object import Object
from fusefs.tree.files import WritableFile
from fusefs.tree.node import Opening, check_access


class WriteOnlyFile(WritableFile):
    """A file that is only written. Its mode says so, and the kernel keeps all but root from reading
    it. Root reads nothing, as of an empty file: so tar, rsync, `cp -r` and `grep -r`, which open
    all that they come across, end well, and have missed nothing.
    """

    __slots__ = ()
    goes_on = False

    def render(self, obj: Object) -> bytes:
        return b""

    def admit(self, opening: Opening) -> os.stat_result:
        status = self.subject.status()
        check_access(self.permissions(status) | 0o444, opening.flags)
        return status
