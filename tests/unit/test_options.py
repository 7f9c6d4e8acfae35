"""Mount options."""

from __future__ import annotations

import pytest

from fusefs.options import OptionError, choice, split_options

ALWAYS = {"default_permissions", "subtype=bpf-fusefs"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], set()),
        ([""], set()),
        (["ro"], {"ro"}),
        (["ro,allow_other"], {"ro", "allow_other"}),
        (["ro", "allow_other"], {"ro", "allow_other"}),
        (["ro,,nodev,"], {"ro", "nodev"}),
        (["defaults,noauto,user,nofail,_netdev,relatime"], set()),
        (["x-systemd.automount,x-anything=5,X-mount.mkdir,comment=some words"], set()),
        (["rw,default_permissions"], {"rw"}),
    ],
)
def test_what_libfuse_gets(given: list[str], expected: set[str]) -> None:
    assert split_options(given, "/sys/fs/bpf")[0] == ALWAYS | expected | {"fsname=/sys/fs/bpf"}


@pytest.mark.parametrize(
    "option",
    ["nonsense", "rodent", "ro=1", "fsname", "max_read=4096", "allow_other=yes", "x", " ro"],
)
def test_unknown_options(option: str) -> None:
    with pytest.raises(OptionError, match=option):
        split_options([f"ro,{option}"], "source")[0]


@pytest.mark.parametrize(
    "given",
    ["remount,ro", "ro,relatime,user_id=0,group_id=0,remount"],  # util-linux 2.38, 2.41
)
def test_what_cannot_be_done_is_said(given: str) -> None:
    with pytest.raises(OptionError, match=r"^a mount cannot be given other options"):
        split_options([given], "source")


@pytest.mark.parametrize(
    ("source", "expected"),
    [("a b", "a b"), ("a,b", r"a\,b"), (r"a\b", r"a\\b"), (r"a\,b", r"a\\\,b"), ("", "")],
)
def test_a_source_is_escaped(source: str, expected: str) -> None:
    assert f"fsname={expected}" in split_options([], source)[0]


def test_a_name_that_is_given_counts() -> None:
    assert split_options(["fsname=mine"], "source")[0] == ALWAYS | {"fsname=mine"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["rw,ro"], {"ro"}),
        (["ro", "rw"], {"rw"}),
        (["sync,async,exec,noexec"], {"async", "noexec"}),
        (["noatime,nodiratime,atime"], {"atime", "nodiratime"}),
        (["fsname=a,fsname=b"], {"fsname=b"}),
        (["subtype=a", "subtype=b"], {"subtype=b"}),
    ],
)
def test_the_last_of_those_that_contradict_each_other_counts(
    given: list[str], expected: set[str]
) -> None:
    options = split_options(given, "source")[0]
    assert options & set(",".join(given).split(",")) == expected


# Our own.


def test_our_own_are_not_given_to_libfuse() -> None:
    options, own = split_options(["ro,by_id=visible", "config=/etc/x"], "source")
    assert options == ALWAYS | {"ro", "fsname=source"}
    assert own == {"by_id": "visible", "config": "/etc/x"}


def test_the_last_one_counts() -> None:
    assert split_options(["by_id=visible,by_id=hidden"], "source")[1] == {"by_id": "hidden"}


def test_one_that_lacks_its_value() -> None:
    with pytest.raises(OptionError, match="by_id"):
        split_options(["by_id"], "source")


CHOICES = {"by_id": ["hidden", "visible"], "requests": ["fast", "stock"]}


@pytest.mark.parametrize("name", CHOICES)
def test_one_that_has_some_values(name: str) -> None:
    assert choice({"config": "x"}, name) == CHOICES[name][0]
    for value in CHOICES[name]:
        assert choice(split_options([f"{name}={value}"], "source")[1], name) == value


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["", "VISIBLE", "Stock", "1", "yes", "visible ", "fast,"])
def test_it_has_no_other_value(name: str, value: str) -> None:
    with pytest.raises(OptionError, match=f"^{name} is .* not '{value}'"):
        choice({name: value}, name)
