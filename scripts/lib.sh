# shellcheck shell=bash
# What the scripts share, to be sourced: it goes to the top of the checkout, and has functions
# that see to it that something is there. They do nothing where it is.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PATH=$PATH:/usr/sbin:/sbin # plain `su` leaves them out, and dpkg needs them
export DEBIAN_FRONTEND=noninteractive

say() { printf '== %s\n' "$*"; }
fail() { printf '%s: %s\n' "$0" "$*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || fail "this takes root: try 'sudo $0'"; }

# Debian's or Ubuntu's packages $@.
need_packages() {
    local package missing=()
    for package; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "this is no Debian or Ubuntu: install by hand what answers to ${missing[*]}"
    need_root
    say "installing ${missing[*]}"
    update_package_lists
    apt-get install -qq -o DPkg::Lock::Timeout=300 --no-install-recommends "${missing[@]}" \
        </dev/null >/dev/null
}

# The same for packages that bring services, which are not to start because of us: see invoke-rc.d(8).
need_packages_of_services() {
    local policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || { need_packages "$@"; return; }
    (
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        need_packages "$@"
    )
}

update_package_lists() {
    [ -z "${package_lists_are_new-}" ] || return 0
    apt-get update -qq
    package_lists_are_new=yes
}

# bpftool: a package, but part of the kernel's tools on Ubuntu up to 24.04.
need_bpftool() {
    use_any_bpftool
    ! bpftool version >/dev/null 2>&1 || return 0
    update_package_lists
    if apt-cache policy bpftool | grep -q 'Candidate: [0-9]'; then
        need_packages bpftool
    else
        need_packages linux-tools-common linux-tools-generic
        use_any_bpftool
    fi
}

# There the command is a script that insists on the tools of the running kernel; those of another
# will do, as in a container.
use_any_bpftool() {
    local found
    for found in /usr/lib/linux-tools/*/bpftool; do
        [ ! -x "$found" ] || bpftool version >/dev/null 2>&1 || PATH=${found%/*}:$PATH
    done
}

# The newest LLVM that there is, whose tools know the most of BPF: packages clang-N and llvm-N.
need_newest_llvm() {
    [ -n "$(newest_llvm)" ] || update_package_lists
    [ -n "$(newest_llvm)" ] || fail "apt knows no package llvm-N"
    need_packages "clang-$(newest_llvm)" "llvm-$(newest_llvm)"
}

newest_llvm() {
    apt-cache search --names-only '^llvm-[0-9]+$' | sed -n 's/^llvm-\([0-9]*\) .*/\1/p' |
        sort -n | tail -n 1
}

# The project and what it runs on, in .venv: `need_project .`, or with an extra of pyproject.toml
# `need_project '.[test]'`.
need_project() {
    # pyfuse3 is compiled here, against libfuse: it has no wheels.
    need_packages python3 python3-venv python3-dev gcc libc6-dev pkg-config libfuse3-dev \
        fuse3 mount ca-certificates
    local stamp=.venv/installed${1#.} made
    made="$PWD $(/usr/bin/python3 --version) $(sha256sum pyproject.toml)"
    [ "$(cat "$stamp" 2>/dev/null)" != "$made" ] || return 0
    say "installing bpf-fusefs in $PWD/.venv"
    .venv/bin/python -m pip --version >/dev/null 2>&1 || /usr/bin/python3 -m venv --clear .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check --editable "$1"
    echo "$made" >"$stamp"
}

need_fuse() {
    [ -e /dev/fuse ] || modprobe fuse || true
    [ -e /dev/fuse ] || fail "/dev/fuse is missing, and 'modprobe fuse' did not bring it"
}
