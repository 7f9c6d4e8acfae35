"""Completion in bash: what is typed becomes what the command takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.completion import ALL, TAB, completed
from support.mounting import nested

import fusefs
from fusefs import cli, options

FILE = Path(fusefs.__file__).parent.parent / "docs/bpf-fusefs.bash"
LOAD = f"source {FILE}"
MOUNT_OPTIONS = sorted(
    [*options._FUSE, "config="]
    + [f"{name}={value}" for name, values in options._CHOICES.items() for value in values]
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file and two directories."""
    (tmp_path / "formats.toml").touch()
    (tmp_path / "mnt").mkdir()
    (tmp_path / "a b").mkdir()
    return tmp_path


def test_all_options(place: Path) -> None:
    real = [flag for action in cli._parser()._actions for flag in action.option_strings]
    assert completed(LOAD, f"-{ALL}", place) == sorted(real)


def test_all_mount_options(place: Path) -> None:
    assert completed(LOAD, f"-o {ALL}", place) == ["-o", *MOUNT_OPTIONS]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (f"--v{TAB}", ["--version"]),
        # Lists of mount options: what comes before the last comma stays as it is.
        (f"-o allow_o{TAB}", ["-o", "allow_other"]),
        (f"-o ro,allow_o{TAB}", ["-o", "ro,allow_other"]),
        (f"-o ro,allow_o{TAB},b{TAB}v{TAB}", ["-o", "ro,allow_other,by_id=visible"]),
        (
            f"-o by_id=visible,req{TAB}s{TAB},noe{TAB}",
            ["-o", "by_id=visible,requests=stock,noexec"],
        ),
        (f"-o requests={ALL}", ["-o", "requests=fast", "stock"]),
        (f"-o requests=fast,by_id={ALL}", ["-o", "requests=fast,by_id=hidden", "visible"]),
        (f"-o fsname=a:b,ro,req{TAB}f{TAB}", ["-o", "fsname=a:b,ro,requests=fast"]),
        (f"-oro,requests=s{TAB}", ["-oro,requests=stock"]),
        (f"-oallow_o{TAB}", ["-oallow_other"]),
        (f"-o ro -o allow_o{TAB}", ["-o", "ro", "-o", "allow_other"]),
        (f"-f mnt -o allow_o{TAB}", ["-f", "mnt", "-o", "allow_other"]),
        (f"-o fsname={TAB}", ["-o", "fsname="]),
        (f"-o nonsense{TAB}", ["-o", "nonsense"]),
        # A file, though a directory begins with the same letter.
        (f"-o config=f{TAB}", ["-o", "config=formats.toml"]),
        (f"-o ro,config=f{TAB}", ["-o", "ro,config=formats.toml"]),
        (f"-o config=formats.toml,allow_o{TAB}", ["-o", "config=formats.toml,allow_other"]),
        # SOURCE and MOUNTPOINT are directories, and there is no third.
        (f"m{TAB}", ["mnt/"]),
        (f"f{TAB}", ["f"]),
        (f"a{TAB}", ["a b/"]),
        (f"/some/source m{TAB}", ["/some/source", "mnt/"]),
        (f"-o ro,by_id=visible -f a:b m{TAB}", ["-o", "ro,by_id=visible", "-f", "a:b", "mnt/"]),
        (f"/some/source mnt m{TAB}", ["/some/source", "mnt", "m"]),
        (f"-o by_id=visible a@b=c mnt m{TAB}", ["-o", "by_id=visible", "a@b=c", "mnt", "m"]),
    ],
)
def test_what_is_typed(place: Path, keys: str, expected: list[str]) -> None:
    assert completed(LOAD, keys, place) == expected


def test_the_source_is_any_bpffs(bpffs: Path, place: Path) -> None:
    directories = ["a b", "mnt"]
    found = completed(LOAD, ALL, place)
    assert str(bpffs) in found
    assert "/proc" not in found
    assert found[-2:] == directories
    assert completed(LOAD, f"{bpffs} {ALL}", place) == [str(bpffs), *directories]
    assert completed(LOAD, f"{str(bpffs)[:-1]}{TAB}", place) == [f"{bpffs}/"]


def test_a_source_with_a_space(place: Path) -> None:
    with nested(place / "a b", ["-t", "bpf", "bpf"]) as bpffs:
        for typed in (f"{place}/a\\ ", f'"{place}/a ', f"{place}/a"):
            assert completed(LOAD, f"{typed}{TAB}", place) == [f"{bpffs}/"]
