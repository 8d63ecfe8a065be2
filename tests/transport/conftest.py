from __future__ import annotations

import asyncio

import pytest
import uvloop


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """What serves in earnest is uvloop, which differs from asyncio's own loop in the small print of transports."""
    return uvloop.EventLoopPolicy()
