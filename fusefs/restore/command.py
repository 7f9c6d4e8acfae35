"""`bpf-fusefs restore`: options, what it says, and how it ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from fusefs.bpf import bpffs
from fusefs.bpf.syscall import may_use_bpf
from fusefs.configuration import ConfigurationError, read_formats
from fusefs.options import TYPE
from fusefs.restore.contents import Outcome
from fusefs.restore.copies import Copy, Failed, Link, find, shown
from fusefs.restore.pins import Pins
from fusefs.restore.places import Places

DEFAULT_BPFFS = "/sys/fs/bpf"

_HELP = f"""\
usage: {TYPE} restore [-p] [--force] DIR [BPFFS]

Make the maps anew whose pins are gone from BPFFS ({DEFAULT_BPFFS} unless it is
given), and pin them where they were. DIR is a copy of a mount, of a directory in
it, or of one pin, as cp -r, cp -a, tar or rsync -a make it: what is DIR/fw/flows
becomes BPFFS/fw/flows. Pins that are there are left alone.

  -p        give pins and directories the owner and mode that their copies have;
            without it they are root's alone
  --force   set the entries of maps that are there, too, if they are of the same
            type and sizes; entries that the copy does not have stay
  --help    say this

What has become of each pin is said, a line each.
Exit status: 0 all maps are there; 1 something could not be made anew, or
not wholly; 2 the command line is wrong.
"""


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        return _HELP

    def error(self, message: str) -> NoReturn:
        _complain(f"{message}; see '{TYPE} restore --help'")
        sys.exit(2)


def _complain(message: str) -> None:
    sys.stdout.flush()
    print(f"{TYPE}: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=f"{TYPE} restore")
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument("bpffs", metavar="BPFFS", nargs="?", default=DEFAULT_BPFFS)
    parser.add_argument("-p", dest="keep_modes", action="store_true")
    parser.add_argument("--force", action="store_true")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run the command. Raises SystemExit unless all could be done."""
    given = _parser().parse_intermixed_args(arguments)
    try:
        if not may_use_bpf():
            raise Failed(given.bpffs, "no permission for bpf(2): run it as root")
        root = _bpffs(given.bpffs)
        formats = read_formats(None)
        if not given.directory.is_dir():
            raise Failed(given.directory, "there is no such directory")
        found = list(find(given.directory))
    except (Failed, ConfigurationError) as error:
        _complain(str(error))
        sys.exit(1)
    if not found:
        _complain(f"{shown(given.directory)}: there is no copy of a pin in it")
        sys.exit(1)
    places = Places(root, keep_modes=given.keep_modes)
    copies = [each for each in found if isinstance(each, Copy)]
    pins = Pins(places, given.directory, copies, formats, force=given.force)
    complaints = [complaint for each in found for complaint in _restore(pins, each)]
    if complaints:
        sys.exit(1)


def _bpffs(path: str) -> bpffs.Directory:
    try:
        directory = bpffs.Directory(path)
    except OSError as error:
        raise Failed(path, error.strerror or str(error)) from None
    if not bpffs.is_bpffs(directory.fd):
        raise Failed(path, f"it is not a bpffs: mount one with 'mount -t bpf bpf {shown(path)}'")
    return directory


def _restore(pins: Pins, each: Copy | Link | Failed) -> Iterator[Failed]:
    """Restore one thing, and say what became of it; what there is to complain of."""
    try:
        if isinstance(each, Failed):
            raise each
        outcome = pins.restore(each)
    except Failed as failed:
        _complain(str(failed))
        yield failed
        return
    _say(each, outcome)
    for left_out in outcome.left_out:
        _complain(str(left_out))
        yield left_out


def _say(each: Copy | Link, outcome: Outcome) -> None:
    print(f"{shown('/'.join(each.names))}: {outcome.words}")
