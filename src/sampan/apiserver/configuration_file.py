"""Files that an administrator gives the API server (`apiserver.config.k8s.io` and its like): read strictly, all problems at once.

Upstream: `k8s.io/apiserver/pkg/apis` (types, and the validation of each).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class ConfigurationError(ValueError):
    """The file cannot be used; the text lists every problem with its path."""


class Reader:
    """Takes values out of a document and gathers what is wrong with it. Each kind of file has a subclass."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, path: str, why: str) -> None:
        self.problems.append(f"{path}: {why}")

    def identity(self, document: Mapping[str, Any], kind: str, versions: Collection[str]) -> None:
        """Hold the document's apiVersion and kind against what is expected."""
        if document.get("kind") != kind or document.get("apiVersion") not in versions:
            found = f"{document.get('apiVersion')}, {document.get('kind')}"
            self.wrong("kind", f"expected {kind} of {' or '.join(versions)}, found {found}")

    def object(self, path: str, value: Any, known: Collection[str]) -> Mapping[str, Any]:
        """An object whose fields are among `known`; {} where there is none."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(path or "document", "must be an object")
            return {}
        for name in value:
            if name not in known:
                near = get_close_matches(str(name), known, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                self.wrong(f"{path}.{name}" if path else str(name), f"unknown field{hint}")
        return value

    def list(self, path: str, value: Any) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(path, "must be a list")
            return []
        return value

    def text(self, path: str, value: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            self.wrong(path, "must be a string")
            return ""
        return value

    def texts(self, path: str, value: Any) -> tuple[str, ...]:
        return tuple(self.text(f"{path}[{i}]", item) for i, item in enumerate(self.list(path, value)))

    def flag(self, path: str, value: Any) -> bool:
        if not isinstance(value, bool | None):
            self.wrong(path, "must be true or false")
        return bool(value)

    def finish(self, path: Path) -> None:
        """Raises ConfigurationError with all that was found wrong."""
        if self.problems:
            raise ConfigurationError(f"{path}: " + "; ".join(self.problems))


def document(path: Path, reader: Reader) -> Any:
    """The document in a YAML or JSON file; keys given twice are told to the reader. Raises OSError, ConfigurationError."""
    from sampan.api import yaml_reader

    try:
        found, doubled = yaml_reader.read(path.read_bytes())
    except yaml_reader.YamlError as e:
        raise ConfigurationError(f"{path}: {e}") from e
    for keys in doubled.values():
        for key, _ in keys:
            reader.wrong(key, "given twice")
    return found
