from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sampan.store.memory import MemoryStore
from sampan.store.types import Store
from tests.store.contract import StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = MemoryStore()
        yield store
        await store.close()
