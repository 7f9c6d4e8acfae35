"""The configuration file: TOML, with the formats of maps by the path of their pins.

# Files with BTF (an ELF file's, or as in /sys/kernel/btf) to look for named types in.
btf = ["/usr/lib/fw/fw.bpf.o"]

[format."xdp-filter/filter_ipv4"]
key = "ipv4"

[format."fw/*"]
value.saddr = "ipv4"
"value.ports[]" = "be"
percpu = "sum"
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fusefs.bpf.named_file import contents
from fusefs.text.errors import Refused
from fusefs.text.jsontext import escape_controls
from fusefs.tree.formats import Formats, Rule

if TYPE_CHECKING:
    from fusefs.bpf.btf import Btf

DEFAULT_FILE = "/etc/bpf-fusefs.toml"

_LONGEST = 1 << 20  # bytes of the file
_LONGEST_LINE = 1 << 12
_KNOWN = frozenset({"btf", "format"})


class ConfigurationError(Exception):
    """What is wrong with the file, in one line."""


def read_formats(path: str | None) -> Formats:
    """The formats that the file at `path` sets, or, when that is None, the default file, which
    need not be there. Raises `ConfigurationError`."""
    file = Path(path or DEFAULT_FILE)
    try:
        text = contents(file, _LONGEST).decode()
    except FileNotFoundError:
        if path is None:
            return Formats()
        raise ConfigurationError(f"{file}: there is no such file") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: it is not UTF-8") from None
    try:
        _check_lines(text)
        return _formats(tomllib.loads(text))
    except (_WrongError, ValueError) as error:  # it may have an integer of too many digits, too
        raise ConfigurationError(f"{file}: {escape_controls(str(error))}") from None
    except RecursionError:
        raise ConfigurationError(f"{file}: it is nested too deep") from None


class _WrongError(Exception):
    """What is wrong, and where in the file."""


def _check_lines(text: str) -> None:
    """Refuse what would take long to read: tomllib takes quadratic time over a key's parts."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _LONGEST_LINE:
            raise _WrongError(f"line {number} has more than {_LONGEST_LINE} characters")


def _formats(given: dict[str, object]) -> Formats:
    if unknown := given.keys() - _KNOWN:
        raise _WrongError(f"unknown key '{min(unknown)}'; the keys are btf and format")
    files = given.get("btf", [])
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise _WrongError("btf: expected a list of file names")
    tables = given.get("format", {})
    if not isinstance(tables, dict):
        raise _WrongError('format: expected tables, as [format."PATTERN"]')
    rules = [_rule(pattern, table) for pattern, table in tables.items()]
    return Formats(rules, [_types(file) for file in files])


def _rule(pattern: str, table: object) -> Rule:
    from fusefs.text.formats import check_setting  # noqa: PLC0415 - for those who have a file

    if not isinstance(table, dict):
        raise _WrongError(f"format: expected a table for '{pattern}'")
    settings: dict[str, str] = {}
    for target, name in _leaves(table):
        if not isinstance(name, str):
            raise _WrongError(f"format.'{pattern}': {target}: expected a string")
        try:
            check_setting(target, " ".join(name.split()))
        except Refused as error:
            raise _WrongError(f"format.'{pattern}': {error}") from None
        settings[target] = " ".join(name.split())
    return Rule(pattern, settings)


def _leaves(table: dict[str, object]) -> Iterator[tuple[str, object]]:
    """The settings of a table: tables within it are the parts of a target."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{part}", inner) for part, inner in _leaves(value))
        else:
            yield name, value


def _types(file: str) -> Btf:
    from fusefs.bpf.btf_file import read_btf  # noqa: PLC0415 - likewise

    try:
        return read_btf(Path(file))
    except (OSError, ValueError) as error:  # BtfError; a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise _WrongError(f"btf: {file}: {reason}") from None
