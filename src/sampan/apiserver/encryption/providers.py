"""The ciphers that seal values. Each value begins with who sealed it: `k8s:enc:CIPHER:v1:KEY:`.

The store key is authenticated with the value (AES-GCM), so that a sealed value moved to another key does not open. The forms
are upstream's: `k8s.io/apiserver/pkg/storage/value/encrypt`.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from sampan.apiserver.encryption.configuration import Key, Provider

if TYPE_CHECKING:
    # Loaded only where something is sealed: some milliseconds, some megabytes.
    from cryptography.hazmat.primitives.ciphers import Cipher, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PREFIX = b"k8s:enc:"
_NONCE = 12
_BLOCK = 16


class Sealed:
    """One provider with its keys."""

    def __init__(self, provider: Provider) -> None:
        self._cipher = provider.cipher
        self._begin = _PREFIX + provider.cipher.encode() + b":v1:"
        self._keys = {key.name.encode(): key for key in provider.keys}
        self._first = provider.keys[0] if provider.keys else None

    def owns(self, stored: bytes) -> bool:
        """Whether a stored value is in the form of this provider."""
        if self._first is None:
            return not stored.startswith(_PREFIX)
        return stored.startswith(self._begin)

    def seal(self, store_key: str, value: bytes) -> bytes:
        if self._first is None:
            return value
        begin = self._begin + self._first.name.encode() + b":"
        if self._cipher == "aesgcm":
            nonce = os.urandom(_NONCE)
            return begin + nonce + _gcm(self._first).encrypt(nonce, value, store_key.encode())
        return begin + _cbc_encrypt(self._first, value)

    def open(self, store_key: str, stored: bytes) -> tuple[bytes, bool]:
        """The value, and whether it was sealed by another key than the first. Raises ValueError."""
        if self._first is None:
            return stored, False
        name, found, sealed = stored[len(self._begin) :].partition(b":")
        key = self._keys.get(name)
        if not found or key is None:
            raise ValueError(
                f"sealed by the {self._cipher} key {name[:64]!r}, which is not in the configuration"
            )
        value = _gcm_open(key, sealed, store_key) if self._cipher == "aesgcm" else _cbc_decrypt(key, sealed)
        return value, key is not self._first


@functools.cache
def _gcm(key: Key) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key.secret)


def _gcm_open(key: Key, sealed: bytes, store_key: str) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        return _gcm(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], store_key.encode())
    except (InvalidTag, ValueError):
        raise ValueError(f"does not open with the aesgcm key {key.name}") from None


def _cbc(key: Key, start: bytes) -> Cipher[modes.CBC]:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key.secret), modes.CBC(start))


def _cbc_encrypt(key: Key, value: bytes) -> bytes:
    start = os.urandom(_BLOCK)
    missing = _BLOCK - len(value) % _BLOCK
    encryptor = _cbc(key, start).encryptor()
    return start + encryptor.update(value + bytes([missing]) * missing) + encryptor.finalize()


def _cbc_decrypt(key: Key, sealed: bytes) -> bytes:
    if len(sealed) < 2 * _BLOCK or len(sealed) % _BLOCK:
        raise ValueError("is cut off")
    decryptor = _cbc(key, sealed[:_BLOCK]).decryptor()
    padded = decryptor.update(sealed[_BLOCK:]) + decryptor.finalize()
    missing = padded[-1]
    if not 1 <= missing <= _BLOCK or padded[-missing:] != bytes([missing]) * missing:
        raise ValueError(f"does not open with the aescbc key {key.name}")
    return padded[:-missing]
