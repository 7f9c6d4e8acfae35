"""The wheel and the sdist: what is in them, and that a stranger's installation of them works."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.completion import TAB, completed
from support.maps import make_map, u32, u64
from support.mounting import Mount
from support.shell import ENVIRONMENT, Result, checked, run

import fusefs

ROOT = Path(fusefs.__file__).parent.parent
NAME = f"bpf_fusefs-{fusefs.__version__}"
MANUAL = "share/man/man8/bpf-fusefs.8"
COMPLETION = "share/bash-completion/completions/bpf-fusefs"
UNIT = "lib/systemd/system/bpf-fusefs.service"


def files_below(*directories: str) -> Iterator[str]:
    """The files of the checkout in some directories, but what Python leaves there."""
    for directory in directories:
        for path in (ROOT / directory).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an sdist, and the wheel that was built from it."""
    path = tmp_path_factory.mktemp("built")
    checked(sys.executable, "-m", "build", "--no-isolation", "--outdir", path, ROOT)
    return path


@pytest.fixture(scope="module")
def prefix(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that the wheel was installed into."""
    path = tmp_path_factory.mktemp("installed")
    checked(sys.executable, "-m", "venv", "--without-pip", path)
    pip = [sys.executable, "-m", "pip", "--python", str(path / "bin/python")]
    checked(*pip, "install", "-q", built / f"{NAME}-py3-none-any.whl")
    checked(*pip, "check")
    return path


def test_the_sdist_has_the_source_and_its_documents(built: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        names = [entry.name.removeprefix(f"{NAME}/") for entry in archive if entry.isfile()]
    beside = ["README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", ".gitignore", "PKG-INFO"]
    assert sorted(names) == sorted([*beside, *files_below("fusefs", "docs")])


def test_the_wheel_has_the_package_and_what_belongs_to_a_command(built: Path) -> None:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as archive:
        names = archive.namelist()
        metadata = archive.read(f"{NAME}.dist-info/METADATA").decode()
    about = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"]
    assert sorted(names) == sorted(
        [f"{NAME}.dist-info/{name}" for name in about]
        + [f"{NAME}.data/data/{name}" for name in (MANUAL, COMPLETION, UNIT)]
        + list(files_below("fusefs"))
    )
    assert "\nLicense-Expression: MIT\n" in metadata


def test_the_command_is_installed_and_mounts(prefix: Path, mounter: Callable[..., Mount]) -> None:
    command = [str(prefix / "bin/bpf-fusefs")]
    assert run([*command, "--version"]) == Result(0, f"bpf-fusefs {fusefs.__version__}\n", "")
    mount = mounter(command=command)
    with make_map() as sample:
        sample.update(u32(7), u64(101))
        mount.pin("sample", sample)
        assert mount.sh("cat sample/entries/7").stdout == "101\n"
    code = checked(prefix / "bin/python", "-I", "-c", "import fusefs; print(fusefs.__file__)")
    assert Path(code.strip()).is_relative_to(prefix)


def test_man_finds_the_page(prefix: Path) -> None:
    path = f"{prefix}/bin:{ENVIRONMENT['PATH']}"
    result = run(["man", "-w", "bpf-fusefs"], env={**ENVIRONMENT, "PATH": path})
    assert result == Result(0, f"{prefix / MANUAL}\n", "")


def test_bash_finds_the_completion(prefix: Path, tmp_path: Path) -> None:
    load = f"XDG_DATA_DIRS={prefix}/share; . /usr/share/bash-completion/bash_completion"
    typed = f"-o ro,by_id=v{TAB}"
    assert completed(load, typed, tmp_path) == ["-o", "ro,by_id=visible"]
    assert completed("true", typed, tmp_path) == ["-o", "ro,by_id=v"]
