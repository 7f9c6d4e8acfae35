"""Errors that have to do with this process, and tell nothing of what it asked for."""

from __future__ import annotations

import errno

OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})


def raise_own(error: Exception) -> None:
    """Raise the error if it is one of those: it will pass."""
    if isinstance(error, OSError) and error.errno in OWN:
        raise error
