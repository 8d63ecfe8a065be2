"""The lesson's manifests, and how to make one with a single fault."""

from __future__ import annotations

from tests.real_cluster import ROOT

LESSON = ROOT / "examples" / "lesson"
AS_PRINTED = LESSON / "as-printed"


def with_fault(manifest: str, right: str, wrong: str) -> str:
    """The corrected manifest with `right` replaced by `wrong`, once."""
    text = (LESSON / manifest).read_text()
    assert text.count(right) == 1, f"{right!r} is {text.count(right)} times in {manifest}"
    return text.replace(right, wrong)
