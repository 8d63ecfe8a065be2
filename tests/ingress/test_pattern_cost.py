"""No pattern that is taken keeps PCRE busy: tried with the library that HAProxy uses, with texts that match as late as they can."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.ingress import patterns
from sampan.ingress.pattern_cost import LONGEST_TEXT, ways

_PCRE = ctypes.util.find_library("pcre2-8") or "libpcre2-8.so.0"
_LIMIT = 20_000_000
_OVER = -47
"""PCRE2_ERROR_MATCHLIMIT"""


def tried(pattern: str, text: str) -> int:
    """PCRE's answer, with a limit to its steps."""
    pcre = ctypes.CDLL(_PCRE)
    for name in ("compile", "match_context_create", "match_data_create_from_pattern"):
        getattr(pcre, f"pcre2_{name}_8").restype = ctypes.c_void_p
    number, at = ctypes.c_int(), ctypes.c_size_t()
    raw, data = pattern.encode(), text.encode()
    size = ctypes.c_size_t
    code = pcre.pcre2_compile_8(raw, size(len(raw)), 0, ctypes.byref(number), ctypes.byref(at), None)
    assert code, pattern
    context = ctypes.c_void_p(pcre.pcre2_match_context_create_8(None))
    pcre.pcre2_set_match_limit_8(context, _LIMIT)
    pcre.pcre2_set_heap_limit_8(context, 200_000)
    found = ctypes.c_void_p(pcre.pcre2_match_data_create_from_pattern_8(ctypes.c_void_p(code), None))
    result = int(pcre.pcre2_match_8(ctypes.c_void_p(code), data, size(len(data)), size(0), 0, found, context))
    pcre.pcre2_match_data_free_8(found)
    pcre.pcre2_match_context_free_8(context)
    pcre.pcre2_code_free_8(ctypes.c_void_p(code))
    return result


@pytest.mark.parametrize(
    ("pattern", "many"),
    [
        ("/[^/]+/[^/]+/(.*)", 1),
        ("/api(/|$)(.*)", 2),
        ("/(a+)b", 1),
        ("/users/[0-9]{1,5}/x", 1),
        ("/(foo|bar)(/.*)?", 1),
        ("/(png|jpg|jpeg|gif)$", 4),
        ("/.*\\.php$", LONGEST_TEXT + 1),
        ("/a?a?a?b", 4),
        ("/.*a.*b", (LONGEST_TEXT + 1) ** 2),
    ],
)
def test_ways(pattern: str, many: int) -> None:
    assert ways(pattern) == pytest.approx(many, rel=0.01)


@pytest.mark.parametrize(
    "pattern", [".*" * 30 + "[bc]", "(a|a|a|a|a)" * 20 + "[bc]", "a?" * 150 + "a" * 100, "/.*a.*[bc]"]
)
def test_what_takes_too_long_is_refused(pattern: str) -> None:
    assert "make it take too long" in patterns.problem(pattern)


_ATOMS = st.sampled_from(
    ["a", ".", "[^/]", "[ab]", "\\w", "/", "b", "(a|ab)", "(a|a)", "(?:/a)", "(/|$)", "[^a]", "$"]
)
_TURNS = st.sampled_from(["", "", "*", "+", "?", "*?", "{1,3}", "{2,}"])
_PATTERNS = st.lists(st.tuples(_ATOMS, _TURNS).map("".join), min_size=1, max_size=9).map("".join)


@settings(max_examples=150, deadline=None)
@given(pattern=_PATTERNS, unit=st.sampled_from(["a", "/a", "ab", "aab/"]))
def test_what_is_taken_ends(pattern: str, unit: str) -> None:
    pattern = f"^/{pattern}[!%]"
    if patterns.problem(pattern):
        return
    text = "/" + (unit * LONGEST_TEXT)[: LONGEST_TEXT - 1]
    assert tried(pattern, text) != _OVER, pattern


def test_groups_in_groups_are_read_once() -> None:
    nested = "(a|" * 19 + "b" + ")" * 19
    assert ways(nested) == 19
