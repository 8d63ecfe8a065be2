"""Image names: what a user writes, and the full name it stands for.

Grammar and defaults are those of the distribution project's reference package: `nginx` is
`docker.io/library/nginx:latest`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sampan.node.images.types import ImageError

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::\d+)?"
)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """A full image name. One of `tag` and `digest` at least is set."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def parse(text: str) -> Reference:
    """The full form of an image name. Raises ImageError InvalidImageName."""
    rest, _, digest = text.partition("@")
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    path = f"{head}{slash}{last}"
    first, slash, remainder = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = first, remainder
    else:
        registry, repository = "docker.io", path if slash else f"library/{path}"
    if registry == "index.docker.io":
        registry = "docker.io"
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    wrong = ""
    if not _HOST.fullmatch(registry):
        wrong = "invalid reference format"
    elif not _PATH.fullmatch(repository):
        wrong = (
            f"invalid reference format: repository name ({repository}) must be lowercase"
            if _PATH.fullmatch(repository.lower())
            else "invalid reference format"
        )
    elif len(repository) > _MOST:
        wrong = f"repository name must not be more than {_MOST} characters"
    elif (colon and not _TAG.fullmatch(tag)) or ("@" in text and not _DIGEST.fullmatch(digest)):
        wrong = "invalid reference format"
    if wrong:
        raise ImageError(
            f'Failed to apply default image tag "{text}": couldn\'t parse image name "{text}": {wrong}',
            "InvalidImageName",
        )
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)
