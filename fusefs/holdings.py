"""What open files take of this process, so that no user can take all of it: memory for what was
written and is not yet committed and for what is being read, and descriptors.

Each file may hold as much as it needs, which its own bounds see to. When what its user holds in
others is too much, no more is taken for that user until some are closed.
"""

from __future__ import annotations

import errno
import resource
from collections import Counter

from fusefs.bpf.credentials import Caller
from fusefs.tree.node import Handle, refusal

# So many bytes may the files of root hold, and so many those of all others together; each of these
# may have a part of that.
_ROOT, _OTHERS = 1 << 26, 1 << 25
_SHARES = 4
# For so many bytes an open file counts beside what it holds.
_FILE = 1 << 12
# The part of the descriptors that files of others than root can have.
_DESCRIPTORS = 2
# Stands for the user id of root, which users have too who are root by that alone.
_IS_ROOT = -1


class Holdings:
    """What open files hold, by their numbers and users."""

    def __init__(self) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._each = max(_FILE, _OTHERS * _DESCRIPTORS // descriptors)
        self._held: dict[int, int] = {}
        self._users: dict[int, int] = {}
        self._by_user: Counter[int] = Counter()
        self._all = 0

    def check_open(self, caller: Caller) -> None:
        """Raise OSError, EMFILE, when no more files may be opened for a user."""
        if not self._has_room(_user(caller), 0):
            raise refusal(errno.EMFILE, "there are too many open files, or they hold too much")

    def check_more(self, number: int) -> None:
        """Raise OSError, ENOMEM, when a file may not hold more than it does."""
        if not self._has_room(self._users[number], self._held[number]):
            raise refusal(errno.ENOMEM, "open files hold too much")

    def grow(self, number: int, handle: Handle) -> None:
        """Note what a file holds now, which is not all yet. Raises OSError, ENOMEM, when others
        hold too much."""
        self.note(number, handle)
        self.check_more(number)

    def note(self, number: int, handle: Handle) -> None:
        """Note what a file holds now."""
        held = self._each + handle.held
        if held != self._held[number]:
            self._add(self._users[number], held - self._held[number])
            self._held[number] = held

    def begin(self, number: int, caller: Caller) -> None:
        """A file of this number is open."""
        user = _user(caller)
        self._users[number], self._held[number] = user, self._each
        self._add(user, self._each)

    def end(self, number: int) -> None:
        """It is closed."""
        user = self._users.pop(number)
        self._add(user, -self._held.pop(number))
        if not self._by_user[user]:
            del self._by_user[user]

    def _has_room(self, user: int, except_for: int) -> bool:
        """Whether a user's files, but for one that holds so much, leave room for more."""
        own, root = self._by_user[user], self._by_user[_IS_ROOT]
        if user == _IS_ROOT:
            return own - except_for < _ROOT
        others = self._all - root
        return own - except_for < _OTHERS // _SHARES and others - except_for < _OTHERS

    def _add(self, user: int, size: int) -> None:
        self._by_user[user] += size
        self._all += size


def _user(caller: Caller) -> int:
    return _IS_ROOT if caller.is_root else caller.uid
