"""Completing command lines, by a bash that is told the keys."""

from __future__ import annotations

from pathlib import Path

from support.shell import ENVIRONMENT, run

TAB = "\t"
ALL = "\x1b*"  # puts all completions into the line (insert-completions)


def completed(load: str, keys: str, cwd: Path) -> list[str]:
    """The arguments that `bpf-fusefs` gets when these keys are typed after its name, and Enter.

    `load` is the command that has bash know how to complete them. The lines that bash reads come
    from a pipe, but its readline takes them as from a terminal.
    """
    lines = [load, """bpf-fusefs() { printf '%s\\0' "$@" >arguments; }""", f"bpf-fusefs {keys}", ""]
    # In a session of its own, it leaves our terminal alone.
    shell = ["setsid", "--wait", "bash", "--norc", "--noprofile", "-i"]
    quiet = {"INPUTRC": "/dev/null", "HISTFILE": "", "TERM": "dumb"}
    output = cwd / "arguments"
    try:
        given = "\n".join(lines).encode()
        result = run(shell, cwd=cwd, given=given, env={**ENVIRONMENT, **quiet})
        assert output.exists(), result
        return output.read_text().split("\0")[:-1]
    finally:
        output.unlink(missing_ok=True)
