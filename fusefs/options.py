"""Mount options: what `-o` takes, and what becomes of it.

mount(8) and fstab(5) hand their own options on to the file system's command; those are not
FUSE's, and libfuse refuses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TYPE = "bpf-fusefs"

# Options that libfuse takes (mount.fuse3(8)); with `=` those that have a value.
_FUSE = frozenset(
    "ro rw suid nosuid dev nodev exec noexec atime noatime diratime nodiratime sync async dirsync "
    "default_permissions allow_other allow_root auto_unmount fsname= subtype= context= fscontext= "
    "defcontext= rootcontext=".split()
)
# Options for mount(8), systemd and the boot, which mean nothing here.
_FOREIGN = frozenset(
    "defaults auto noauto user nouser users nousers group nogroup owner nofail _netdev relatime "
    "norelatime strictatime nostrictatime lazytime nolazytime comment=".split()
)
_COMMENTS = ("x-", "X-")  # fstab(5)
# mount(8) has the command do it, and FUSE has no way to.
_REMOUNT = (
    "a mount cannot be given other options: unmount it and mount it again, "
    "or see 'mount -o remount,bind,ro'"
)

# Options of our own that have one of some values; the first if they are not given. None has a name
# that mount(8) takes for its own, as it does `loop` and `offset`.
_CHOICES = {"by_id": ("hidden", "visible"), "requests": ("fast", "stock")}
# All of our own.
_OURS = frozenset(["config=", *(f"{name}=" for name in _CHOICES)])


class OptionError(ValueError):
    """An option that is neither ours, nor FUSE's, nor mount(8)'s; a value that it does not have;
    or what cannot be done."""


def _name(option: str) -> str:
    """The option as it stands in the tables: with `=` when it has a value."""
    name, equals, _ = option.partition("=")
    return name + equals


def split_options(given: Iterable[str], source: str) -> tuple[set[str], dict[str, str]]:
    """What libfuse is to get of the options in `given`, each an option or a comma-separated list;
    and our own options by name.

    The kernel always checks permissions, and the mount is named after its source. Of options that
    contradict each other the last counts. Raises `OptionError`.
    """
    own: dict[str, str] = {}
    # By what they are about: libfuse gets them in any order.
    options = {"fsname": "fsname=" + _escaped(source), "subtype": f"subtype={TYPE}"}
    every = [option for text in given for option in text.split(",") if option]
    if "remount" in every:  # beside what it finds in /proc/self/mountinfo, which is not ours
        raise OptionError(_REMOUNT)
    for option in every:
        name = _name(option)
        if name in _FUSE:
            options[_subject(name)] = option
        elif name in _OURS:
            own[name.removesuffix("=")] = option.removeprefix(name)
        elif name not in _FOREIGN and not name.startswith(_COMMENTS):
            raise OptionError(f"unknown option '{option}'")
    return {"default_permissions", *options.values()}, own


def _subject(name: str) -> str:
    """What an option that libfuse takes is about. Of those of one subject the last counts."""
    subject = name.removesuffix("=").removeprefix("no")
    return {"ro": "rw", "async": "sync"}.get(subject, subject)


def _escaped(source: str) -> str:
    """A comma in a value is escaped so for libfuse (fuse_opt_add_opt_escaped)."""
    return source.replace("\\", "\\\\").replace(",", "\\,")


def choice(own: Mapping[str, str], name: str) -> str:
    """The value of an option of our own that has one of some values. Raises `OptionError`."""
    values = _CHOICES[name]
    value = own.get(name, values[0])
    if value not in values:
        raise OptionError(f"{name} is {' or '.join(map(repr, values))}, not '{value}'")
    return value
