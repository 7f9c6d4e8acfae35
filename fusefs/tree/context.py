"""What all of a mount has in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from fusefs.tree.error_log import ErrorLogs
from fusefs.tree.formats import Formats


@dataclass(frozen=True, slots=True)
class Context:
    """The logs of refused operations, and the formats of maps."""

    logs: ErrorLogs = field(default_factory=ErrorLogs)
    formats: Formats = field(default_factory=Formats)
