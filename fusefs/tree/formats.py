"""The formats of a mount's maps: from the configuration, and from what is written to `format`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fusefs.tree.recent import Recent

if TYPE_CHECKING:
    from fusefs.bpf.btf import Btf
    from fusefs.text.formats import Settings

# Pins of which what was written is remembered.
_PINS = 1024


@dataclass(frozen=True, slots=True)
class Rule:
    """Settings for the pins whose path below the mount matches `pattern`.

    It is a shell pattern: `*` stands for any part of one name, and `**` for any number of names.
    """

    pattern: str
    settings: Settings

    def matches(self, path: Sequence[str]) -> bool:
        """Whether it is for the pin at this path."""
        return _matches(self.pattern.strip("/").split("/"), path)


def _matches(patterns: Sequence[str], names: Sequence[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_matches(patterns[1:], names[at:]) for at in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _matches(patterns[1:], names[1:])


@dataclass(slots=True)
class Formats:
    """The settings of each pin, and files with types that they may name.

    Rules come first; those further down win. What was written to a pin's `format` wins over them,
    and goes along when the pin is renamed through the mount. It stays for the next object that is
    pinned there, as long as the mount does.
    """

    rules: Sequence[Rule] = ()
    files: Sequence[Btf] = ()
    _written: Recent[Hashable, dict[str, str]] = field(default_factory=lambda: Recent(_PINS))

    def settings(self, place: Hashable, path: Sequence[str]) -> dict[str, str]:
        """All settings for what is at that place, which `path` leads to."""
        settings: dict[str, str] = {}
        for rule in self.rules:
            if rule.matches(path):
                settings.update(rule.settings)
        settings.update(self._written.get(place, {}))
        return settings

    def write(self, place: Hashable, settings: Mapping[str, str]) -> None:
        """Remember what was written for what is at a place, over what was before."""
        self._written[place] = {**self._written.get(place, {}), **settings}

    def rename(self, old: Hashable, new: Hashable, *, exchange: bool) -> None:
        """A pin has another name now; with `exchange`, what was there has its old one."""
        moved, other = self._written.pop(old, None), self._written.pop(new, None)
        for place, settings in ((new, moved), (old, other if exchange else None)):
            if settings is not None:
                self._written[place] = settings
