"""Opening and closing, which the base does for every vendor: what failed once, and what was never open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hosted import Hosted
from openproto_conformance.emulators import Status

from openproto import AsyncMemory, OpenProtoError, Provider, ProviderUnavailableError


async def every_write_works(provider: Provider) -> None:
    """Update, supersede, and put through the client of a provider."""
    async with AsyncMemory(provider) as memory:
        old = await memory.add("tea", user_id="ann")
        assert (await memory.update(old.id, content="green tea")).content == "green tea"
        new = await memory.add("coffee", user_id="ann", supersedes=[old.id])
        assert (await memory.get(old.id)).superseded_by == new.id
        assert (await memory.put("water", user_id="ann", key="drink")).key == "drink"


async def test_after_one_failed_opening_everything_works(hosted: Hosted, emulator: Any, tmp_path: Path) -> None:
    provider = hosted.make(emulator, tmp_path)
    with emulator.faults.always(Status(503)), pytest.raises(OpenProtoError):
        await provider.open()
    with pytest.raises(RuntimeError, match="is not open"):
        await provider.health()
    await every_write_works(provider)


async def test_a_provider_that_was_never_opened_says_so_and_one_that_was_closed_says_that(
    hosted: Hosted, emulator: Any, tmp_path: Path
) -> None:
    provider = hosted.make(emulator, tmp_path)
    for verb in (provider.health, provider.describe):
        with pytest.raises(RuntimeError, match=f"the {hosted.name} provider is not open"):
            await verb()
    await provider.open()
    await provider.close()
    with pytest.raises(ProviderUnavailableError, match="closed while"):
        await provider.health()
    fresh = provider.fresh()
    assert type(fresh) is type(provider)
    with pytest.raises(RuntimeError, match="is not open"):
        await fresh.health()
