"""Regular expressions of objects: what they may be made of, and how they stand in a map.

HAProxy compiles them by PCRE. One that it refused would keep it from taking anything new, so only what is sure to be taken, and small, gets there.
"""

from __future__ import annotations

import re
import warnings

from sampan.ingress.pattern_cost import ways

_MOST = 500
_DEPTH = 20
_REPEATS = 200
"""The product of all counts `{n}` at most: a pattern is compiled to so many copies of its parts."""
_WAYS = 2**15
"""In how many ways a text may be tried: some 100 ms at worst."""
_PLAIN = frozenset("^$()|?*+[]{}.,-_~/:@!&=%<>")
_CLASSES = frozenset("dDwWsSbB")


def problem(pattern: str) -> str:
    """Why a pattern cannot be used, or ""."""
    if len(pattern) > _MOST:
        return f"a pattern has {_MOST} characters at most"
    if not pattern.isascii() or not pattern.isprintable():
        return "a pattern has printable ASCII characters only"
    if re.search(r"\(\?(?!:)", pattern) or re.search(r"[*+?}]\+", pattern):
        return "of groups only (...) and (?:...) are supported, and no possessive quantifiers"
    if re.search(r"\[[.:=]", pattern):
        return "classes such as [:alpha:] are not supported"
    for escape in re.findall(r"\\(.?)", pattern):
        if (escape.isalnum() and escape not in _CLASSES) or not escape:
            return f"the escape \\{escape} is not supported"
    if pattern.count("(") > _DEPTH:
        return f"a pattern has {_DEPTH} groups at most"
    if _repeats_repetitions(pattern):
        return "a repeated group has no repetitions and alternatives in it: it could take for ever"
    copies = 1
    for low, high in re.findall(r"\{(\d+)(?:,(\d*))?\}", pattern):
        copies *= max(int(low), int(high or 0), 1) if len(low + high) < 9 else _REPEATS + 1
    if copies > _REPEATS:
        return f"counted repetitions come to {_REPEATS} at most"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # classes that may come to mean something else
            re.compile(pattern)
    except (re.error, FutureWarning, OverflowError, RecursionError) as e:
        return f"it is no regular expression: {e}"
    if ways(pattern) > _WAYS:
        return (
            "repetitions and choices that can share characters make it take too long: one such as .* before something else is all there can be; "
            "write [^/]* for what ends at a slash"
        )
    return ""


def _repeats_repetitions(pattern: str) -> bool:
    """Whether a group that is repeated holds something that can be matched in several ways."""
    plain = re.sub(r"\\.", "x", pattern)  # what is escaped stands for itself
    plain = re.sub(r"\[\^?\]?[^\]]*\]", "x", plain)
    manifold = [False]
    for i, char in enumerate(plain):
        if char == "(":
            manifold.append(False)
        elif char == ")" and len(manifold) > 1:
            inner = manifold.pop()
            repeated = plain[i + 1 : i + 2] in ("*", "+", "{")
            if inner and repeated:
                return True
            manifold[-1] |= inner or repeated
        elif char in "*+{|" or (char == "?" and plain[i - 1 : i] != "("):
            manifold[-1] = True
    return False


def grouped(pattern: str) -> str:
    """A pattern as part of another one, from its beginning, and as one word: the groups in it keep their numbers."""
    return f"(?:{_word(pattern.removeprefix('^'))})"


def escaped(text: str) -> str:
    """A text that stands for itself."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{ord(c):02x}" for c in text)


def _word(pattern: str) -> str:
    out, i = [], 0
    while i < len(pattern):
        char = pattern[i]
        if char == "\\" and i + 1 < len(pattern):
            following = pattern[i + 1]
            out.append(
                f"\\{following}"
                if following in _PLAIN or (following.isascii() and following.isalnum())
                else escaped(following)
            )
            i += 2
            continue
        out.append(char if char in _PLAIN or (char.isascii() and char.isalnum()) else escaped(char))
        i += 1
    return "".join(out)
