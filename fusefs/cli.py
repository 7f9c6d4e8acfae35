"""The command `bpf-fusefs`: options, exit codes, and life in the background."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from fusefs import __version__, logs
from fusefs.background import run_in_background
from fusefs.configuration import DEFAULT_FILE, ConfigurationError, read_formats
from fusefs.mount import (
    MountError,
    check_answer,
    check_privilege,
    open_source,
    prepare_mountpoint,
    serve,
)
from fusefs.options import TYPE, OptionError, choice, split_options
from fusefs.text.jsontext import escape_controls, printable

DEFAULT_SOURCE = "/sys/fs/bpf"
# Another name for it, as in mount(8)'s tables, for fstab: systemd takes a source that begins with
# /sys for a device, and waits for it in vain.
_SOURCE_IN_FSTAB = "bpf"
RESTORE = "restore"

_HELP = f"""\
usage: {TYPE} [SOURCE] MOUNTPOINT [-o OPTIONS] [-f] [-d]
       {TYPE} restore [-p] [--force] DIR [BPFFS]

Show the BPF maps, programs and links that are pinned in the bpffs SOURCE
({DEFAULT_SOURCE} unless it is given, or called '{_SOURCE_IN_FSTAB}') as directories of
readable text.

  -o OPTIONS   mount options, separated by commas: ro, allow_other, fsname=NAME
               and the others of mount.fuse3(8);
               config=FILE: formats of keys and values, instead of
               {DEFAULT_FILE};
               by_id=visible: list .by-id, the objects of the whole kernel;
               requests=stock: serve them with pyfuse3's own, slower loop
  -f           stay in the foreground, log to standard error, and tell systemd
               when it is mounted
  -d           log each request; implies -f
  --version    say the version
  --help       say this

restore makes maps anew from a copy of a mount: see '{TYPE} restore --help'.
Unmount with 'umount MOUNTPOINT' or 'fusermount3 -u MOUNTPOINT'.
Exit status: 0 mounted, and with -f unmounted; 1 it cannot be mounted;
2 the command line is wrong.
"""


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        return _HELP

    def error(self, message: str) -> NoReturn:
        _fail(2, f"{message}; see '{TYPE} --help'")


def _fail(code: int, message: str) -> NoReturn:
    # What was given may be of any bytes: neither lines of their own nor a terminal's commands.
    line = f"{TYPE}: {escape_controls(printable(message))}"
    print(logs.for_journal(line, logging.ERROR) if logs.is_journal() else line, file=sys.stderr)
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=TYPE)
    parser.add_argument("paths", nargs="*", metavar="[SOURCE] MOUNTPOINT")
    parser.add_argument("-o", dest="options", action="append", default=[])
    parser.add_argument("-f", dest="foreground", action="store_true")
    parser.add_argument("-d", dest="debug", action="store_true")
    parser.add_argument("--version", action="version", version=f"{TYPE} {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Returns when it is mounted, or with `-f` unmounted; else SystemExit."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == [RESTORE]:
        from fusefs.restore.command import main as restore  # noqa: PLC0415 - it needs no mount

        restore(words[1:])
        return
    # Before there is a mount, nothing has to be cleared away.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    given = _parser().parse_intermixed_args(words)
    paths = given.paths
    if len(paths) not in (1, 2):
        wanted = "a MOUNTPOINT is missing" if not paths else "too many arguments"
        _fail(2, f"{wanted}; see '{TYPE} --help'")
    called, mountpoint = paths if len(paths) == 2 else (DEFAULT_SOURCE, paths[0])
    source = DEFAULT_SOURCE if called == _SOURCE_IN_FSTAB else called
    try:
        options, own = split_options(given.options, called)
        by_id_listed = choice(own, "by_id") == "visible"
        fast_loop = choice(own, "requests") == "fast"
    except OptionError as error:
        _fail(2, str(error))
    try:
        formats = read_formats(own.get("config"))
    except ConfigurationError as error:
        _fail(1, str(error))
    mountpoint = os.path.realpath(mountpoint)
    foreground = given.foreground or given.debug
    logs.begin(TYPE, foreground=foreground, debug=given.debug)
    try:
        check_privilege()
        directory = open_source(source)
        prepare_mountpoint(mountpoint, directory)
        serve_here = functools.partial(
            serve, directory, mountpoint, options, formats, by_id_listed, fast_loop
        )
        if foreground:
            serve_here(lambda: None)
        else:
            run_in_background(serve_here)
            check_answer(mountpoint)
    except MountError as error:
        _fail(1, str(error))
    except OSError as error:  # of this process' own: it has no more descriptors, or cannot fork
        _fail(1, f"{mountpoint}: {error.strerror}")
