"""Which provider seals a store key, found by the kind whose keys begin like it."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.resources import Resource, stored
from sampan.apiserver.encryption.configuration import Rule
from sampan.apiserver.encryption.providers import Sealed
from sampan.apiserver.records import prefix_of
from sampan.store.types import StoreDamaged


class KindTransformer:
    """Implements `store.transformed.Transformer` by the rules of an EncryptionConfiguration."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._by_prefix: list[tuple[str, tuple[Sealed, ...]]] = []
        sealed = [(rule, tuple(map(Sealed, rule.providers))) for rule in rules]
        for resource in stored():
            rule = next((providers for r, providers in sealed if _names(r, resource)), None)
            if rule is not None:
                self._by_prefix.append((prefix_of(resource.storage_path), rule))
        self._prefixes = tuple(prefix for prefix, _ in self._by_prefix)

    def concerns(self, key: str) -> bool:
        return key.startswith(self._prefixes)

    def seal(self, key: str, value: bytes) -> bytes:
        return self._providers(key)[0].seal(key, value)

    def open(self, key: str, stored: bytes) -> tuple[bytes, bool]:
        """Raises StoreDamaged for what no provider here has sealed."""
        providers = self._providers(key)
        for provider in providers:
            if provider.owns(stored):
                try:
                    value, old_key = provider.open(key, stored)
                except ValueError as e:
                    raise StoreDamaged(f"{key}: {e}") from None
                return value, old_key or provider is not providers[0]
        raise StoreDamaged(
            f"{key}: no provider in the encryption configuration opens it; add the one that sealed it "
            "(identity, where it was stored in the clear)"
        )

    def _providers(self, key: str) -> tuple[Sealed, ...]:
        return next(providers for prefix, providers in self._by_prefix if key.startswith(prefix))


def _names(rule: Rule, resource: Resource) -> bool:
    """Whether a rule is about a resource; the caller asks the rules in their order."""
    group = f"*.{resource.group}"
    return any(name in (resource.key_stem, group, "*.*") for name in rule.resources)
