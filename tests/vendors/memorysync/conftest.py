"""MemorySync's own SDK next to the fixtures of every vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from hosted import BY_NAME, Hosted
from memorysync import MemorySyncClient
from openproto_adapters.memorysync.ids import end_user

from openproto.emulation import user_token

Sdk: TypeAlias = Callable[[str], MemorySyncClient]


@pytest.fixture
def hosted() -> Hosted:
    """The vendor of this folder."""
    return BY_NAME["memorysync"]


@pytest.fixture
def sdk(emulator: Any) -> Iterator[Sdk]:
    """MemorySync's SDK as another program would use it, for a user of ours."""
    made: list[MemorySyncClient] = []

    def connect(user_id: str) -> MemorySyncClient:
        made.append(MemorySyncClient(emulator.api_key, emulator.url, end_user_id=end_user(user_token(user_id))))
        return made[-1]

    yield connect
    for client in made:
        client.close()
