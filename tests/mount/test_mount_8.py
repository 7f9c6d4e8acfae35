"""mount(8), umount(8) and fstab(5): all in a mount namespace of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.maps import make_map, pin
from support.mounting import COMMAND
from support.namespaces import INSTALLED, apart
from support.shell import Result

TYPE = "fuse.bpf-fusefs"


@pytest.fixture
def fstab(place: Path) -> Path:
    """A file for `mount -T`, which a test writes."""
    return place.parent / "fstab"


def mounting(bpffs: Path, place: Path, script: str) -> Result:
    """Run a script where the command is installed, with $bpffs and $place."""
    return apart(INSTALLED + script, bpffs=bpffs, place=place)


def test_mount_and_umount(bpffs: Path, place: Path) -> None:
    pin(bpffs / "sample", make_map())
    script = """
    mount -v -t fuse.bpf-fusefs $bpffs $place -o ro,allow_other && cat $place/sample/count
    findmnt -rno SOURCE,FSTYPE $place
    findmnt -no OPTIONS $place | tr , '\\n' | grep -xE 'ro|allow_other'
    umount $place; findmnt $place || ls $place
    """
    result = mounting(bpffs, place, script)
    assert result == Result(0, f"0\n{bpffs} {TYPE}\nro\nallow_other\n", "")


def test_a_path_of_the_command_needs_no_installation(bpffs: Path, place: Path) -> None:
    script = f"mount -t fuse '{COMMAND[0]}#{bpffs}' $place; findmnt -rno SOURCE,FSTYPE $place"
    assert apart(script, place=place) == Result(0, f"{bpffs} {TYPE}\n", "")


def test_path_is_not_asked(bpffs: Path, place: Path) -> None:
    # Where somebody has installed it, there is another.
    script = """
    for directory in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin; do
        [ ! -e $directory/bpf-fusefs ] || mount --bind /dev/null $directory/bpf-fusefs
    done
    PATH=$commands:$PATH mount -t fuse.bpf-fusefs $bpffs $place
    """
    result = apart(script, commands=Path(COMMAND[0]).parent, bpffs=bpffs, place=place)
    assert result.code in (126, 127)
    assert "bpf-fusefs" in result.stderr


LINE = "noauto,nofail,x-systemd.requires-mounts-for=/sys/fs/bpf,_netdev,user,x-foo=bar"


def test_a_line_of_fstab(bpffs: Path, place: Path, fstab: Path) -> None:
    config = place.parent / "formats.toml"
    config.write_text('[format.sample]\nvalue = "hex"\n')
    fstab.write_text(f"{bpffs} {place} {TYPE} {LINE},by_id=visible,config={config} 0 0\n")
    pin(bpffs / "sample", make_map())
    script = f"""
    mount -a -T {fstab}; findmnt $place
    mount -T {fstab} $place && ls -A $place && grep value $place/sample/format
    """
    said = mounting(bpffs, place, script)
    assert (said.code, said.stderr) == (0, "")
    assert said.stdout.split("\n")[0] == ".by-id"  # noauto is left alone by -a
    assert "value: hex\n" in said.stdout


@pytest.mark.parametrize("source", ["bpffs", "bpf"])
def test_all_of_fstab(bpffs: Path, place: Path, fstab: Path, source: str) -> None:
    named = str(bpffs) if source == "bpffs" else source
    fstab.write_text(f"{named} {place} {TYPE} nofail 0 0\n")
    pin(bpffs / "sample", make_map())
    script = f"""
    mount --bind $bpffs /sys/fs/bpf
    mount -a -T {fstab} && mount -a -T {fstab} # the second finds it mounted
    findmnt -rno SOURCE $place; ls $place | grep sample
    """
    assert mounting(bpffs, place, script) == Result(0, f"{named}\nsample\n", "")


@pytest.mark.parametrize(
    ("source", "options", "code", "reason"),
    [
        ("/etc", "rw", 1, "/etc is not a bpffs: mount one with 'mount -t bpf bpf /etc'"),
        ("$bpffs", "config=/none/such.toml", 1, "/none/such.toml: there is no such file"),
        ("$bpffs", "ro,nonsense", 2, "unknown option 'nonsense'"),
        ("$bpffs", "by_id=seen", 2, "by_id is 'hidden' or 'visible', not 'seen'"),
    ],
)
def test_errors(
    bpffs: Path, place: Path, source: str, options: str, code: int, reason: str
) -> None:
    script = f"mount -t {TYPE} {source} $place -o {options}; code=$?; findmnt $place; exit $code"
    assert mounting(bpffs, place, script) == Result(code, "", f"bpf-fusefs: {reason}\n")


def test_other_users_cannot_mount(bpffs: Path, place: Path, fstab: Path) -> None:
    fstab.write_text(f"{bpffs} {place} {TYPE} {LINE} 0 0\n")
    script = f"""
    mount --bind {fstab} /etc/fstab
    setpriv --reuid=65534 --regid=65534 --clear-groups mount $place; code=$?
    findmnt $place; exit $code
    """
    result = mounting(bpffs, place, script)
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert result.code != 0


def test_remounting_is_refused(bpffs: Path, place: Path) -> None:
    script = f"""
    mount -t {TYPE} $bpffs $place; mount -o remount,ro $place; echo $?; mkdir $place/still
    """
    result = mounting(bpffs, place, script)
    assert result.stdout == "2\n"
    assert result.stderr.startswith("bpf-fusefs: a mount cannot be given other options: ")
    assert result.stderr.count("\n") == 1
    assert (bpffs / "still").is_dir()


def test_what_can_be_done_instead(bpffs: Path, place: Path) -> None:
    script = f"""
    mount -t {TYPE} $bpffs $place; mount -o remount,bind,ro $place; mkdir $place/not
    mount -o remount,bind,rw $place; mkdir $place/new
    """
    result = mounting(bpffs, place, script)
    assert (result.code, result.stdout) == (0, "")
    assert result.stderr.endswith("/not’: Read-only file system\n")
    assert [path.name for path in bpffs.iterdir() if path.is_dir()] == ["new"]
