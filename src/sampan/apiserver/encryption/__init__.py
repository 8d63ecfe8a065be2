"""Encryption at rest: which objects are stored sealed, and how. `configuration` reads the file, `providers` are the ciphers."""

from __future__ import annotations

from pathlib import Path

from sampan.apiserver.encryption.configuration import load
from sampan.apiserver.encryption.transformer import KindTransformer
from sampan.store.transformed import TransformedStore
from sampan.store.types import Store


def encrypted(store: Store, path: Path) -> TransformedStore:
    """The store, sealed as the EncryptionConfiguration in `path` wants. Raises OSError, ConfigurationError."""
    return TransformedStore(store, KindTransformer(load(path)))
