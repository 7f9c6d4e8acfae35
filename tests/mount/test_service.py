"""The unit for systemd: what it lets the mount do, and what systemd is told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.links import loaded, on_cgroup
from support.maps import make_map
from support.mounting import COMMAND, Mount, mounts_at, temporary_directory, unmount
from support.programs import load
from support.shell import ENVIRONMENT, run
from support.unit import CAPABILITIES, UNIT
from support.users import NOBODY, nobody
from support.waiting import eventually

Mounter = Callable[..., Mount]

TYPE = "fuse.bpf-fusefs"


# The file.


def test_the_unit_is_well_formed(tmp_path: Path) -> None:
    # As it is, it needs the command where systemd looks for it.
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("ExecStart=bpf-fusefs", f"ExecStart={COMMAND[0]}"))
    result = run(["systemd-analyze", "verify", "--man=no", copy])
    assert (result.code, result.stderr) == (0, "")


# Each of these gives a service a mount namespace of its own, in which nobody else sees the mount
# (systemd.exec(5)).
UNSEEN = re.compile(
    r"^(Private(Tmp|Devices|Mounts|IPC|Network|Users)|Protect(System|Home|Proc|Kernel.*)"
    r"|ProtectControlGroups|ProcSubset|.*Paths|TemporaryFileSystem|Root(Directory|Image)|.*Images|DynamicUser"
    r"|LogNamespace)=",
    re.MULTILINE,
)


def test_the_mount_is_seen_by_others() -> None:
    assert UNSEEN.findall(UNIT.read_text()) == []


def test_the_docs_have_each_capability() -> None:
    rows = re.findall(r"^\| `(CAP_\w+)` \|", UNIT.with_name("service.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(CAPABILITIES)


# What the capabilities are for.


def limited(*without: str) -> list[str]:
    """The command, with the unit's capabilities and no other, and without some of them."""
    kept = [name.removeprefix("CAP_").lower() for name in CAPABILITIES if name not in without]
    sets = ",".join(["-all", *(f"+{name}" for name in kept)])
    return ["setpriv", "--no-new-privs", f"--bounding-set={sets}", f"--inh-caps={sets}", *COMMAND]


def reads_a_pin_of_others(mount: Mount) -> bool:
    return mount.sh("cat theirs/count").stdout == "0\n"


def names_the_cgroup_of_a_link(mount: Mount) -> bool:
    return "cgroup_path: " in (mount.path / "link/info").read_text()


def gives_away(mount: Mount) -> bool:
    return mount.sh("chown 1 given").code == 0


def changes_the_mode_of_others(mount: Mount) -> bool:
    return mount.sh("chmod 700 nobodys").code == 0


def makes_for_others(mount: Mount) -> bool:
    made = nobody(mount, "mkdir for_all/new && stat -c %u:%g for_all/new && rmdir for_all/new")
    return made.stdout == f"{NOBODY}:{NOBODY}\n"


def finds_holders(mount: Mount) -> bool:
    holders = json.loads((mount.path / "sample/info.json").read_text())["holders"]
    return isinstance(holders, list) and os.getpid() in [holder["pid"] for holder in holders]


def names_kernel_functions(mount: Mount) -> bool:
    return "the kernel hides it" not in (mount.path / "program/jited").read_text()


def ends_what_others_gave_up(mount: Mount) -> bool:
    """Whether Graphviz, which runs as another user, ends when nobody waits for its picture."""
    children = Path(f"/proc/{mount.process.pid}/task/{mount.process.pid}/children")
    with subprocess.Popen(["cat", mount.path / "sample/graph.svg"], stdout=subprocess.PIPE) as cat:
        try:
            drawing = eventually("it is drawn", children.read_text).split()
        finally:
            cat.kill()
    try:
        eventually("it has ended", lambda: not children.read_text(), 1)
    except AssertionError:
        for child in drawing:
            os.kill(int(child), signal.SIGKILL)
        return False
    return True


TAKES: dict[str, Callable[[Mount], bool]] = {
    "CAP_DAC_OVERRIDE": reads_a_pin_of_others,
    "CAP_DAC_READ_SEARCH": names_the_cgroup_of_a_link,
    "CAP_CHOWN": gives_away,
    "CAP_FOWNER": changes_the_mode_of_others,
    "CAP_SETUID": makes_for_others,
    "CAP_SETGID": makes_for_others,
    "CAP_SYS_PTRACE": finds_holders,
    "CAP_SYSLOG": names_kernel_functions,
    "CAP_KILL": ends_what_others_gave_up,
}


@contextlib.contextmanager
def arranged(mount: Mount, directory: Path) -> Iterator[None]:
    """What the above look at."""
    with contextlib.ExitStack() as stack:
        for name in ("sample", "theirs", "given"):
            mount.pin(name, stack.enter_context(make_map()))
        mount.pin("program", stack.enter_context(load()))
        mount.pin("link", stack.enter_context(on_cgroup(stack.enter_context(loaded()))))
        for name in ("nobodys", "for_all"):
            (mount.source / name).mkdir()
        for name in ("theirs", "nobodys"):
            os.chown(mount.source / name, NOBODY, NOBODY)
        (mount.source / "for_all").chmod(0o1777)
        # A Graphviz that takes longer than anybody waits.
        (directory / "dot").write_text("#!/bin/sh\nexec sleep 20\n")
        (directory / "dot").chmod(0o755)
        yield


@pytest.fixture
def limited_mount(mounter: Mounter) -> Iterator[Callable[..., Mount]]:
    """Mounts with the unit's capabilities, without some of them."""
    with temporary_directory() as directory, contextlib.ExitStack() as stack:

        def mount(*without: str) -> Mount:
            environment = ["env", f"PATH={directory}:{os.environ['PATH']}"]
            command = [*environment, *limited(*without)]
            made = mounter("-o", "allow_other", command=command, complains=bool(without))
            stack.enter_context(arranged(made, directory))
            return made

        yield mount


def test_its_capabilities_are_enough(limited_mount: Callable[..., Mount]) -> None:
    mount = limited_mount()
    failed = [name for name, works in TAKES.items() if not works(mount)]
    assert failed == []


def kernel_hides_nothing() -> bool:
    """Whether everybody may know its addresses: kallsyms_show_value in kernel/ksyms_common.c."""
    hides, paranoid = (
        int(Path("/proc/sys/kernel", name).read_text())
        for name in ("kptr_restrict", "perf_event_paranoid")
    )
    return hides == 0 and paranoid <= 1


@pytest.mark.parametrize("name", [name for name in CAPABILITIES if name != "CAP_SYS_ADMIN"])
def test_each_capability_is_needed(limited_mount: Callable[..., Mount], name: str) -> None:
    if name == "CAP_SYSLOG" and kernel_hides_nothing():
        pytest.skip("this kernel hides its addresses from nobody")
    assert not TAKES[name](limited_mount(name))


def test_no_mount_without_cap_sys_admin(bpffs: Path, tmp_path: Path) -> None:
    result = run([*limited("CAP_SYS_ADMIN"), bpffs, tmp_path, "-f"])
    assert (result.code, mounts_at(tmp_path)) == (1, [])
    assert result.stderr == "bpf-fusefs: no permission for bpf(2): run it as root\n"


# What systemd is told.


class Systemd:
    """The socket that systemd listens at, for what services tell it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.settimeout(20)
        self._socket.bind(address.replace("@", "\0"))

    def told(self) -> tuple[int, list[str]]:
        """The next message: whose it is, and what it says. Waits for it."""
        text, ((_, _, credentials),), _, _ = self._socket.recvmsg(4096, 4096)
        return struct.unpack("3i", credentials)[0], text.decode().split("\n")

    def nothing(self) -> bool:
        """Whether nothing is waiting to be read."""
        return not select.select([self._socket], [], [], 0)[0]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """Somebody who listens."""
    with contextlib.closing(Systemd(str(tmp_path / "notify"))) as made:
        yield made


def told_of(systemd: Systemd) -> list[str]:
    return ["env", f"NOTIFY_SOCKET={systemd.address}", *COMMAND]


@pytest.mark.parametrize("kind", ["", "@"], ids=["path", "abstract"])
def test_it_is_told_of_the_beginning_and_the_end(
    mounter: Mounter, tmp_path: Path, kind: str
) -> None:
    with contextlib.closing(Systemd(f"{kind}{tmp_path}/notify")) as systemd:
        mount = mounter(command=told_of(systemd))
        ready = ["READY=1", f"STATUS=mounted on {mount.path}"]
        assert systemd.told() == (mount.process.pid, ready)
        mount.process.send_signal(signal.SIGTERM)
        assert systemd.told()[1][0] == "STOPPING=1"
        assert mount.process.wait(10) == 0
        assert systemd.nothing()


def test_systemd_is_told_when_somebody_unmounts(mounter: Mounter, systemd: Systemd) -> None:
    mount = mounter(command=told_of(systemd))
    assert systemd.told()[1][0] == "READY=1"
    assert mount.end() == 0
    assert systemd.told()[1][0] == "STOPPING=1"


def test_it_is_ready_when_it_answers(bpffs: Path, place: Path, systemd: Systemd) -> None:
    # Nobody but the mount itself has asked it anything before that.
    with subprocess.Popen([*told_of(systemd), bpffs, place, "-f"], env=ENVIRONMENT) as process:
        try:
            assert systemd.told()[1][0] == "READY=1"
            assert mounts_at(place) == [TYPE]
            assert os.listdir(place)
        finally:
            process.terminate()


def test_it_is_not_ready_when_it_does_not_answer(
    bpffs: Path, place: Path, tmp_path: Path, systemd: Systemd
) -> None:
    faults = tmp_path / "handler"
    faults.write_text("getattr")
    script = Path(__file__).with_name("faulty_command.py")
    command = ["env", f"NOTIFY_SOCKET={systemd.address}", sys.executable, str(script), str(faults)]
    log = tmp_path / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen([*command, bpffs, place, "-f"], env=ENVIRONMENT, stderr=stderr) as process,
    ):
        try:
            eventually("it is in the log", lambda: "does not answer" in log.read_text(), 20)
            assert systemd.nothing()
        finally:
            process.terminate()
    assert process.returncode == 0


def test_systemd_is_told_nothing_of_a_mount_that_fails(bpffs: Path, systemd: Systemd) -> None:
    assert run([*told_of(systemd), bpffs, "/none/such", "-f"]).code == 1
    assert systemd.nothing()


def test_one_in_the_background_tells_nothing(bpffs: Path, place: Path, systemd: Systemd) -> None:
    # The socket is that of another service, which has run the command.
    assert run([*told_of(systemd), bpffs, place]).code == 0
    assert os.listdir(place)
    unmount(place)
    assert systemd.nothing()


def test_a_systemd_that_does_not_listen_is_no_obstacle(mounter: Mounter) -> None:
    mount = mounter(command=["env", "NOTIFY_SOCKET=/none/such", *COMMAND], complains=True)
    eventually("it is in the log", mount.log)
    assert "WARNING: systemd cannot be told READY=1" in mount.log()
