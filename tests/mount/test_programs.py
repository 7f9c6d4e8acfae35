"""Programs in the mount: their code, what they use and what runs them, and what is said of them."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from support.links import Loaded, loaded, raw_tracepoint
from support.maps import make_map, u32
from support.mounting import COMMAND, Mount
from support.programs import (
    NOTHING,
    Code,
    load,
    machine_code,
    shown,
    told_by_bpftool,
    using,
    using_values,
)
from support.running import run
from support.shell import checked
from support.users import DENIED, NOBODY, nobody
from support.waiting import eventually

from fusefs.bpf.link import Link
from fusefs.bpf.map import MapType

Mounter = Callable[..., Mount]

OF_CODE = ["classify", "sums", "jumps", "rewrites", "runs_long", "on_context", "from_two_files"]
OF_KERNEL = ["calls_the_kernel", "has_addresses", "makes_a_map"]


@pytest.fixture(scope="module")
def files() -> Iterator[dict[str, Loaded]]:
    """The programs, by their names."""
    with loaded("code") as code, loaded("code_kernel") as kernel:
        yield dict.fromkeys(OF_CODE, code) | dict.fromkeys(OF_KERNEL, kernel)


@pytest.fixture
def pinned(mounted: Mount, files: dict[str, Loaded]) -> Mount:
    """A mount that shows all of them."""
    for name, file in files.items():
        with file.program(name) as program:
            mounted.pin(name, program)
    return mounted


def code_of(mount: Mount, name: str) -> Code:
    """`xlated` of a program."""
    return shown((mount.path / name / "xlated").read_text())


# xlated.


@pytest.mark.parametrize("name", OF_CODE + OF_KERNEL)
def test_each_instruction_as_bpftool_has_it(pinned: Mount, name: str) -> None:
    ours, theirs = code_of(pinned, name), told_by_bpftool(pinned.source / name)
    assert ours.functions == theirs.functions
    assert ours.instructions.keys() == theirs.instructions.keys()
    targets = set()
    for at, text in theirs.instructions.items():
        own = ours.instructions[at]
        if found := re.search(r"goto pc([+-]\d+)", text):
            target = at + 1 + int(found[1])
            targets.add(target)
            assert own.endswith(f"goto L{target}"), own
        elif found := re.fullmatch(r"call pc([+-]\d+)#.*", text):
            assert own == f"call {ours.functions[at + 1 + int(found[1])]}"
        elif found := re.fullmatch(r"call (\w+)#\d+", text):
            assert own == f"call {found[1]}"
        elif found := re.fullmatch(r"\((.*)\) r\d = subprog\[\+(\d+)\]", f"() {text}"):
            assert own == f"{text[:2]} = {ours.functions[at + 1 + int(found[2])]} ll"
        elif found := re.fullmatch(r"r(\d) = map\[id:(\d+)\](?:\[0\]\+(\d+))?", text):
            offset = f" [a-z.]+ \\+ {found[3]}" if found[3] else ""
            assert re.fullmatch(rf"r{found[1]} = [\w.]+ ll  # map {found[2]}{offset}", own), own
    assert ours.labels == {target: f"L{target}" for target in targets}


@pytest.mark.parametrize("name", OF_CODE + OF_KERNEL)
def test_each_source_line_where_bpftool_has_it(pinned: Mount, name: str) -> None:
    ours, theirs = code_of(pinned, name), told_by_bpftool(pinned.source / name)
    assert ours.lines.keys() <= theirs.lines.keys()
    for at in theirs.instructions:
        assert ours.line_of(at) == theirs.line_of(at), at


def texts(code: Code, word: str) -> list[str]:
    """The instructions in which there is a word."""
    return [text for text in code.instructions.values() if word in text]


def test_calls_by_name(pinned: Mount) -> None:
    called = texts(code_of(pinned, "classify"), "call")
    assert "call length_of" in called and "call verdict" in called
    assert "call bpf_ktime_get_ns" in called
    assert all(re.fullmatch(r"call [a-z_]\w+", text) for text in called)
    assert texts(code_of(pinned, "jumps"), "call") == ["call bpf_tail_call"]
    assert texts(code_of(pinned, "calls_the_kernel"), "call") == [
        f"call bpf_{name}"
        for name in (
            "task_from_pid", "task_release", "rcu_read_lock", "rcu_read_unlock", "cpumask_create",
            "cpumask_release",
        )
    ]  # fmt: skip
    assert texts(code_of(pinned, "sums"), "add ll") == ["r2 = add ll"]
    looping = code_of(pinned, "runs_long")
    assert texts(looping, "spin") == ["r2 = spin ll", "call spin"]


def test_maps_and_variables_by_name(pinned: Mount, files: dict[str, Loaded]) -> None:
    ids = {}
    for name in ("flows", "table", "code.bss", "code.data", "code.rodata"):
        with files["classify"].map(name) as made:
            ids[name] = made.info.id
    loads = {text.split(" = ")[1] for text in texts(code_of(pinned, "classify"), " ll")}
    assert loads == {
        f"flows ll  # map {ids['flows']}",
        f"seen ll  # map {ids['code.bss']} code.bss + 0",
        f"total ll  # map {ids['code.bss']} code.bss + 8",
        f"threshold ll  # map {ids['code.data']} code.data + 0",
        f"levels ll  # map {ids['code.data']} code.data + 4",
        f"strict ll  # map {ids['code.rodata']} code.rodata + 4",
    }
    assert texts(code_of(pinned, "jumps"), " ll") == [f"r2 = table ll  # map {ids['table']}"]


def test_places_in_values(mounted: Mount, files: dict[str, Loaded]) -> None:
    with files["classify"].map("code.data") as data, using_values(data, [0, 2, 4, 16]) as program:
        mounted.pin("sample", program)
        assert texts(code_of(mounted, "sample"), " ll") == [
            f"r1 = {name} ll  # map {data.info.id} code.data + {offset}"
            for name, offset in (
                ("threshold", 0), ("threshold + 2", 2), ("levels", 4), ("levels + 12", 16),
            )
        ]  # fmt: skip
    plain = make_map(MapType.ARRAY, max_entries=1, name="plain")
    with plain, using_values(plain, [4]) as program:
        mounted.pin("plain", program)
        loads = texts(code_of(mounted, "plain"), " ll")
        assert loads == [f"r1 = plain + 4 ll  # map {plain.info.id}"]


def test_addresses_of_the_kernel_by_name(pinned: Mount) -> None:
    loads = [text.split(" = ")[1] for text in texts(code_of(pinned, "has_addresses"), " ll")]
    kallsyms = {
        name: f"0x{address}"
        for address, _, name, *_ in map(str.split, Path("/proc/kallsyms").read_text().splitlines())
    }
    variable = f"__start_rodata ll  # {kallsyms['__start_rodata']}"
    assert sorted(loads) == [variable, "vfs_read ll"]


def test_a_file_is_named_where_it_changes(pinned: Mount) -> None:
    code = code_of(pinned, "from_two_files")
    names = [Path(name).name for name in code.files.values()]
    assert names == ["here.c", "elsewhere.h", "here.c"]
    assert min(code.files) == 0
    for at, file in code.files.items():
        assert (int(code.numbers[at]) >= 200) == file.endswith("here.c")
    assert set(code.lines.values()) == {""}  # the files are not there
    one_file = code_of(pinned, "classify")
    assert [Path(name).name for name in one_file.files.values()] == ["code.bpf.c"]


def test_without_types(mounted: Mount) -> None:
    with make_map(name="a_map") as made, using(made, name="plain") as program:
        mounted.pin("sample", program)
        assert (mounted.path / "sample/xlated").read_text() == (
            f"plain:\n   0: r1 = a_map ll  # map {made.info.id}\n   2: r0 = 0\n   3: exit\n"
        )
    with load(name="") as program:
        mounted.pin("nameless", program)
        header = f"program_{program.info.id}:\n"
        assert (mounted.path / "nameless/xlated").read_text().startswith(header)


@pytest.mark.parametrize("name", ["classify", "calls_the_kernel"])
def test_the_code_as_it_is(pinned: Mount, tmp_path: Path, name: str) -> None:
    dump = tmp_path / "dump"
    checked("bpftool", "prog", "dump", "xlated", "pinned", pinned.source / name, "file", dump)
    directory = pinned.path / name
    assert (directory / "xlated.bin").read_bytes() == dump.read_bytes()
    machine = (directory / "jited.bin").read_bytes()
    info = json.loads((directory / "info.json").read_text())
    for file in ("xlated", "jited"):
        length = info[f"{file}_prog_len"]
        assert os.stat(directory / f"{file}.bin").st_size == length
        copied = pinned.sh(f"cp {name}/{file}.bin {tmp_path}/copy && stat -c %s {tmp_path}/copy")
        assert copied.stdout == f"{length}\n"
    assert len(machine) == info["jited_prog_len"] == sum(info["jited_func_lens"])


LARGE = 120_000


@pytest.mark.parametrize("name", ["xlated", "jited"])
def test_a_large_program_is_streamed_and_others_are_answered(mounted: Mount, name: str) -> None:
    if name == "jited":
        pytest.importorskip("capstone")
    longest = 0.0
    ended = threading.Event()

    def ask() -> None:
        nonlocal longest
        while not ended.is_set():
            start = time.monotonic()
            (mounted.path / "small/stats").read_text()
            longest = max(longest, time.monotonic() - start)

    with load(NOTHING[:8] * (LARGE - 1) + NOTHING[8:]) as large, load() as small:
        mounted.pin("large", large)
        mounted.pin("small", small)
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            lines = (mounted.path / "large" / name).read_text().splitlines()
        finally:
            ended.set()
            asking.join()
    assert len(lines) > LARGE
    if name == "xlated":
        assert lines[-1] == f"{LARGE - 1}: exit"
    assert 0 < longest < 2
    assert mounted.sh(f"head -n 2 large/{name} | wc -l").stdout == "2\n"


def test_one_that_is_larger_than_the_kernel_shows(mounted: Mount) -> None:
    with load(NOTHING[:8] * 600_000 + NOTHING[8:]) as program:
        mounted.pin("sample", program)
        with pytest.raises(OSError) as caught:
            program.xlated()
        assert caught.value.errno == errno.ENOMEM
        told = (mounted.path / "sample/xlated").read_text()
        assert told.startswith("# The kernel") and told.count("\n") == 1
        assert mounted.sh("cat sample/xlated.bin").stderr.endswith("Cannot allocate memory\n")
        assert mounted.sh("stat -c %s sample/xlated.bin").stdout == f"{8 * 600_001}\n"


# jited.


def functions(text: str) -> list[Code]:
    """The functions in `jited`, whose addresses begin at 0 each."""
    return [shown(part, 16) for part in text.split("\n\n")]


@pytest.mark.parametrize("name", OF_CODE + OF_KERNEL)
def test_machine_code_as_llvm_has_it(pinned: Mount, tmp_path: Path, name: str) -> None:
    pytest.importorskip("capstone")
    directory = pinned.path / name
    lengths = json.loads((directory / "info.json").read_text())["jited_func_lens"]
    machine = (directory / "jited.bin").read_bytes()
    made = functions((directory / "jited").read_text())
    assert len(made) == len(lengths)
    for start, length, code in zip(
        itertools.accumulate([0, *lengths]), lengths, made, strict=False
    ):
        theirs = machine_code(machine[start : start + length], tmp_path)
        assert code.instructions.keys() == theirs.keys()
        for at, text in theirs.items():
            assert code.instructions[at].split()[0] == text.split()[0], at
            if found := re.fullmatch(r"j\w+\s+0x([0-9a-f]+)", text):
                target = int(found[1], 16)
                inside = target in code.instructions
                assert code.instructions[at].endswith(f" L{target:x}") == inside
                assert (target in code.labels) == inside
    jumps = [
        text.split()[-1] for code in made for text in code.instructions.values() if text[0] == "j"
    ]
    assert {label for code in made for label in code.labels.values()} <= {*jumps}


def calls(*parts: Code) -> list[tuple[str, str]]:
    """What is called, and the source line of that."""
    return [
        (re.sub("^bpf_prog_[0-9a-f]{16}_", "", text.split()[1]), code.line_of(at))
        for code in parts
        for at, text in code.instructions.items()
        if text.startswith("call")
    ]


@pytest.mark.parametrize("name", ["classify", "sums", "runs_long", "calls_the_kernel"])
def test_names_and_source_lines_in_machine_code(pinned: Mount, name: str) -> None:
    """They are those of `xlated`."""
    pytest.importorskip("capstone")
    machine = functions((pinned.path / name / "jited").read_text())
    code = code_of(pinned, name)
    assert [made.functions for made in machine] == [{0: name} for name in code.functions.values()]
    assert calls(*machine) == calls(code) != []
    lines = [line for made in machine for line in made.lines.values()]
    assert lines == [*code.lines.values()]


# A mount for which capstone is not installed.
WITHOUT_CAPSTONE = """
import sys
sys.modules["capstone"] = None
import fusefs.cli
fusefs.cli.main()
"""


def test_without_capstone(mounter: Mounter) -> None:
    mount = mounter(command=[sys.executable, "-c", WITHOUT_CAPSTONE])
    with load() as program:
        mount.pin("sample", program)
        told = (mount.path / "sample/jited").read_text()
        assert told.startswith("# ") and "pip install 'bpf-fusefs[jit]'" in told
        assert (mount.path / "sample/jited.bin").read_bytes() == program.jited() != b""
        assert "exit" in (mount.path / "sample/xlated").read_text()


def test_where_the_kernel_hides_addresses(mounter: Mounter, files: dict[str, Loaded]) -> None:
    """To a daemon without CAP_SYSLOG it does, as to all with kernel.kptr_restrict=2."""
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) <= 1:
        pytest.skip("here the kernel shows its addresses to everybody")
    mount = mounter(command=["setpriv", "--bounding-set=-syslog", *COMMAND])
    for name in ("classify", "sums", "calls_the_kernel"):
        with files[name].program(name) as program:
            mount.pin(name, program)
    code = code_of(mount, "classify")
    calls = texts(code, "call")
    assert calls.count("call length_of") == calls.count("call verdict") == 1
    hidden = [text for text in calls if text.startswith("call 0")]
    assert len(hidden) == len(calls) - 2 > 0
    assert all("kernel.kptr_restrict" in text for text in hidden)
    assert "flows ll" in " ".join(texts(code, " ll"))
    assert texts(code_of(mount, "sums"), "add ll") == ["r2 = add ll"]
    assert "kptr_restrict" in texts(code_of(mount, "calls_the_kernel"), "call")[0]
    told = mount.sh("cat classify/jited").stdout
    assert told.startswith("# ") and "kernel.kptr_restrict" in told
    assert mount.sh("cat classify/jited.bin").stderr.endswith("Operation not permitted\n")
    assert "kernel.kptr_restrict" in mount.error_log("classify")
    assert mount.sh("wc -c < classify/xlated.bin").stdout == f"{8 * (max(code.instructions) + 1)}\n"


# Who may see them.

ROOTS = ["xlated", "jited", "xlated.bin", "jited.bin", "types.h"]


def test_code_and_what_it_leads_to_is_roots(mounter: Mounter) -> None:
    os.umask(0o022)
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    with make_map(name="a_map") as made, using(made) as program:
        mount.pin("sample", program)
        os.chmod(mount.source / "sample", 0o666)
        os.chown(mount.source / "sample", NOBODY, NOBODY)
        eventually("it is theirs", lambda: nobody(mount, "cat sample/info").code == 0, 1)
        for name in ROOTS:
            assert mount.sh(f"stat -c '%A %U:%G' sample/{name}").stdout == "-r-------- root:root\n"
            assert nobody(mount, f"cat sample/{name}").stderr.endswith(DENIED)
            assert mount.sh(f"cat sample/{name} | wc -c").stdout != "0\n"
        for name in ("maps", "links"):
            assert mount.sh(f"stat -c '%A %U:%G' sample/{name}").stdout == "dr-x------ root:root\n"
            assert nobody(mount, f"ls sample/{name}").stderr.endswith(DENIED)
            assert nobody(mount, f"readlink -e sample/{name}/a_map").code == 1
        for name in ("info", "stats"):
            assert nobody(mount, f"cat sample/{name}").code == 0, name
        refused = nobody(mount, "true >> sample/stats")
        assert refused.stderr.endswith("Operation not permitted\n")
        assert "only root" in mount.error_log("sample")


# maps/ and links/.


def test_maps_lead_to_what_it_uses(pinned: Mount, files: dict[str, Loaded]) -> None:
    names = ["code.bss", "code.data", "code.rodata", "flows"]
    assert sorted(os.listdir(pinned.path / "classify/maps")) == names
    for name in names:
        with files["classify"].map(name) as made:
            place = f"{pinned.path}/.by-id/maps/{made.info.id}"
            assert pinned.sh(f"readlink -f classify/maps/{name}").stdout == f"{place}\n"
            said = json.loads((pinned.path / f"classify/maps/{name}/info.json").read_text())
            assert (said["id"], said["name"]) == (made.info.id, name)
            size = os.lstat(pinned.path / f"classify/maps/{name}").st_size
            assert size == len(os.readlink(pinned.path / f"classify/maps/{name}"))
    threshold = pinned.path / "classify/maps/code.data/vars/threshold"
    before = threshold.read_text()
    threshold.write_text("7\n")
    with files["classify"].map("code.data") as made:
        assert (made.lookup(u32(0)) or b"")[:4] == u32(7)
    threshold.write_text(before)
    with pytest.raises(FileNotFoundError):
        os.lstat(pinned.path / "classify/maps/table")


def test_names_of_maps_that_are_not_one_alone(mounted: Mount) -> None:
    names = ["twice", "twice", "", ".", "..", "a.b.", "other"]
    maps = [make_map(name=name) for name in names]
    try:
        with using(*maps) as program:
            mounted.pin("sample", program)
            ids = [made.info.id for made in maps]
            expected = {
                f"twice.{ids[0]}": ids[0], f"twice.{ids[1]}": ids[1], str(ids[2]): ids[2],
                str(ids[3]): ids[3], str(ids[4]): ids[4], "a.b.": ids[5], "other": ids[6],
            }  # fmt: skip
            directory = mounted.path / "sample/maps"
            assert set(os.listdir(directory)) == expected.keys()
            for name, number in expected.items():
                assert json.loads((directory / name / "info.json").read_text())["id"] == number
            for absent in ("twice", "nothing", f"other.{ids[6]}"):
                assert not (directory / absent).exists()
    finally:
        for made in maps:
            made.close()


def test_links_come_and_go(pinned: Mount, files: dict[str, Loaded]) -> None:
    directory = pinned.path / "on_context/links"
    assert os.listdir(directory) == []
    with files["on_context"].program("on_context") as program:
        with raw_tracepoint(program, "sys_enter", 1) as link:
            number = str(link.info.id)
            assert os.listdir(directory) == [number]
            place = f"{pinned.path}/.by-id/links/{number}"
            assert pinned.sh(f"readlink -f on_context/links/{number}").stdout == f"{place}\n"
            said = json.loads((directory / number / "info.json").read_text())
            assert (said["type"], said["prog_id"]) == ("raw_tracepoint", program.info.id)
            own = pinned.sh(f"jq -c .link_ids {directory}/{number}/prog/info.json").stdout
            assert own == f"[{number}]\n"
            with raw_tracepoint(program, "sys_exit", 1) as second:
                assert set(os.listdir(directory)) == {number, str(second.info.id)}
            eventually("the second is gone", lambda: os.listdir(directory) == [number], 1)
            with raw_tracepoint_of(files) as other:
                assert not (directory / str(other.info.id)).is_symlink()
        eventually("the link is gone", lambda: os.listdir(directory) == [], 1)
    assert not (directory / "0").is_symlink()


def raw_tracepoint_of(files: dict[str, Loaded]) -> Link:
    """A link that runs another program."""
    with loaded() as others, others.program("on_raw_tracepoint") as program:
        return raw_tracepoint(program, "sys_enter", 1)


def test_nothing_is_made_in_them(pinned: Mount) -> None:
    for command in ("touch maps/x", "mkdir links/x", "ln -s flows maps/x", "rm maps/flows",
                    "mv maps/flows maps/x"):  # fmt: skip
        result = pinned.sh(f"cd classify && {command}")
        assert result.code == 1
        assert result.stderr.endswith(("Operation not permitted\n", "Permission denied\n")), result
    assert (pinned.path / "classify/maps/flows").is_symlink()


def test_walking_through_them_ends(pinned: Mount, files: dict[str, Loaded]) -> None:
    with (
        files["on_context"].program("on_context") as program,
        raw_tracepoint(program, "sys_enter", 1),
    ):
        found = pinned.sh("find . | wc -l", seconds=20)
        assert found.code == 0 and int(found.stdout) < 1000
        listed = pinned.sh("ls -lR", seconds=20)
        assert (listed.code, listed.stderr) == (0, "")
        # Loops are the same here as in /sys: whoever follows links is told of them.
        assert pinned.sh("find -L on_context -maxdepth 5 > /dev/null", seconds=20).stdout == ""


# info.


def test_info_as_bpftool_has_it(pinned: Mount) -> None:
    told = json.loads(
        checked("bpftool", "-j", "prog", "show", "pinned", pinned.source / "classify")
    )
    info = json.loads((pinned.path / "classify/info.json").read_text())
    assert info["type"] == told["type"] == "xdp"
    assert info["name"] == told["name"] == "classify"
    assert (info["id"], info["tag"], info["created_by_uid"]) == (
        told["id"],
        told["tag"],
        told["uid"],
    )
    loaded_at = datetime.fromisoformat(info["load_time"]).timestamp()
    assert abs(loaded_at - told["loaded_at"]) <= 1
    assert abs(loaded_at - time.time()) < 600
    assert info["xlated_prog_len"] == told["bytes_xlated"]
    assert info["jited_prog_len"] == told["bytes_jited"]
    assert info["memlock"] == told["bytes_memlock"]
    assert info["map_ids"] == told["map_ids"]
    assert info["btf_id"] == told["btf_id"]
    assert info["gpl_compatible"] is told["gpl_compatible"] is True
    assert info["verified_insns"] >= 60
    assert len(info["prog_tags"]) == info["nr_jited_ksyms"] == 3
    assert info["pins"] == [str(pinned.source / "classify")]
    assert info["link_ids"] == []


def test_the_types_are_its_own_and_its_context(pinned: Mount) -> None:
    header = (pinned.path / "classify/types.h").read_text()
    assert "__u32 rx_queue_index;" in header  # of struct xdp_md
    assert "int classify(struct xdp_md *" in header
    assert "rewrites(" not in header  # another program of the same file, and of the same BTF


def test_what_it_was_loaded_for(mounted: Mount) -> None:
    with loaded("links_iterators") as made, made.program("each_element") as program:
        mounted.pin("sample", program)
        info = json.loads((mounted.path / "sample/info.json").read_text())
        assert info["attach_name"] == "bpf_iter_bpf_map_elem"


def test_figures_in_info_are_those_of_now(mounted: Mount) -> None:
    with load() as program:
        mounted.pin("sample", program)
        with (mounted.path / "sample/stats").open("a"):
            run(program, 5)
        assert json.loads((mounted.path / "sample/info.json").read_text())["run_cnt"] == 5


def test_a_program_that_is_gone(mounted: Mount) -> None:
    with load() as program:
        mounted.pin("sample", program)
        number = program.info.id
        place = mounted.path / f".by-id/programs/{number}"
        assert place.joinpath("xlated").read_text()
        with (mounted.path / "sample/xlated").open() as held:
            (mounted.path / "sample").rmdir()
            program.close()
            assert "exit" in held.read()
    eventually("it is gone", lambda: not place.exists(), 1)
    for name in ("xlated", "stats", "maps/x"):
        with pytest.raises(FileNotFoundError):
            os.open(place / name, os.O_RDONLY)
