"""The text of a Corefile as blocks and directives, each with its line (Caddy's syntax, as CoreDNS has it).

What the directives mean is `directives`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

DEFAULT = """\
.:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
        max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
"""
"""What a cluster begins with: kubeadm's, less `health` and `ready`. Their ports would be taken from Pods in the node's network,
and the supervisor knows without them."""


_DEEPEST = 1
"""A directive has a block, the directives in that have none."""


class CorefileError(ValueError):
    """All that is wrong with a Corefile, a line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Directive:
    """A word, its arguments, and the directives in its braces."""

    name: str
    arguments: tuple[str, ...]
    line: int
    block: tuple[Directive, ...] = ()
    braces: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        return (self.name, *self.arguments)


@dataclass(slots=True)
class Block:
    """A server: the zones it is for, and its directives."""

    keys: list[str]
    line: int
    directives: list[Directive] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    words: list[str]


def parse(text: str) -> list[Block]:
    """Raises CorefileError."""
    lines = _Lines(list(_lines(text)))
    blocks = []
    while lines.more():
        line = lines.take()
        keys = [k for word in line.words[:-1] for k in word.split(",") if k]
        if line.words[-1] != "{" or not keys:
            raise CorefileError([f"line {line.number}: a server is zones and an opening brace: . {{"])
        if keys[0].startswith("("):
            raise CorefileError([f"line {line.number}: snippets ({keys[0]}) are not supported"])
        blocks.append(Block(keys, line.number, list(_directives(lines, line.number, 0))))
    if not blocks:
        raise CorefileError(["there is no server in it"])
    return blocks


class _Lines:
    def __init__(self, lines: list[_Line]) -> None:
        self._lines = lines
        self._at = 0

    def more(self) -> bool:
        return self._at < len(self._lines)

    def take(self) -> _Line:
        self._at += 1
        return self._lines[self._at - 1]


def _directives(lines: _Lines, opened: int, depth: int) -> Iterator[Directive]:
    while lines.more():
        line = lines.take()
        first, *rest = line.words
        if first == "}":
            if rest:
                raise CorefileError([f"line {line.number}: nothing may follow a closing brace"])
            return
        if first == "{":
            raise CorefileError([f"line {line.number}: an opening brace needs a word before it"])
        if rest and rest[-1] == "{":
            if depth == _DEEPEST:
                raise CorefileError(
                    [f"line {line.number}: braces within the braces of a directive are not supported"]
                )
            block = tuple(_directives(lines, line.number, depth + 1))
            yield Directive(first, tuple(rest[:-1]), line.number, block, braces=True)
        else:
            yield Directive(first, tuple(rest), line.number)
    raise CorefileError([f"line {opened}: its brace is never closed"])


def _lines(text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.splitlines(), 1):
        words = list(_words(line, number))
        if "{" in words[:-1] or ("}" in words and words != ["}"]):
            raise CorefileError([f"line {number}: a brace ends its line, a closing one stands alone"])
        if words:
            yield _Line(number, words)


def _words(line: str, number: int) -> Iterator[str]:
    at, size = 0, len(line)
    while at < size:
        if line[at].isspace():
            at += 1
        elif line[at] == "#":
            return
        elif line[at] == '"':
            end = line.find('"', at + 1)
            if end < 0:
                raise CorefileError([f"line {number}: a quote is never closed"])
            yield line[at + 1 : end]
            at = end + 1
        else:
            end = at
            while end < size and not line[end].isspace():
                end += 1
            word = line[at:end]
            if word.startswith("{$") or "{%" in word:
                raise CorefileError([f"line {number}: environment variables ({word}) are not supported"])
            yield word
            at = end
