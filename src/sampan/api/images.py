"""Image references as the API needs them: only the tag decides a default."""

from __future__ import annotations


def tag_of(image: str) -> str:
    """The tag of a reference: `latest` when there is neither tag nor digest, "" when there is only a digest."""
    name, _, digest = image.partition("@")
    last = name.rpartition("/")[2]
    _, colon, tag = last.partition(":")
    if colon:
        return tag
    return "" if digest else "latest"
