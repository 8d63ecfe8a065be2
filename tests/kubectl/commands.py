"""How the tests of this directory look at a command: exit code, output and what it says on standard error, word for word."""

from __future__ import annotations

import re
from pathlib import Path

from tests.real_cluster import Kubectl

IMAGE = "localhost/busybox:1"

SERVERS = re.compile(r"Warning: (\w+ is stored|spec\.|v1 (Endpoints|ComponentStatus) is deprecated)")
KUBECTLS_OWN = {
    "Warning: deleting cluster-scoped resources, not scoped to the provided namespace",
}


def said(kubectl: Kubectl, *arguments: str | Path, stdin: str | None = None, err: str = "") -> str:
    """What a command prints that must succeed and say `err`, which is mostly nothing, on standard error."""
    done = kubectl.run(*arguments, stdin=stdin)
    assert (done.code, done.err) == (0, err), (
        f"kubectl {' '.join(map(str, arguments))}: exit code {done.code}\n{done.out}{done.err}"
    )
    return done.out


def answers(kubectl: Kubectl, *arguments: str | Path, stdin: str | None = None) -> str:
    """What a command prints that must succeed; of what it warns, only the server's word is taken that a kind is stored
    and what does not work with it yet."""
    done = kubectl.run(*arguments, stdin=stdin)
    assert done.code == 0, done
    own = [line for line in done.err.splitlines() if line not in KUBECTLS_OWN and not SERVERS.match(line)]
    assert own == [], done
    return done.out


def refused(kubectl: Kubectl, *arguments: str | Path, stdin: str | None = None, code: int = 1) -> str:
    """What a command says on standard error that must fail with `code`."""
    done = kubectl.run(*arguments, stdin=stdin)
    assert done.code == code, f"kubectl {' '.join(map(str, arguments))}: {done}"
    return done.err


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table, without its heading. Cells must have no blanks."""
    return [line.split() for line in table.splitlines()[1:]]
