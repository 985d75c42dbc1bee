"""A primary and a mirror in one folder, and whatever can be written to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dict_vendor import DictVendor
from openproto_adapters.sqlite import Sqlite
from waiting import until

from openproto import AsyncMemory, Provider
from openproto.layers.mirroring.status import mirror_status

COMPARED = ("content", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key")
RESTORED = ("created_at", "updated_at", "superseded_by")
"""What is the same too on a mirror that restores records as they are."""


def plain(path: Path) -> Sqlite:
    return Sqlite(path, embedder="none", synchronous="normal")


class Pair:
    """A primary and a mirror in one folder: clients of both together, and what each holds."""

    def __init__(self, folder: Path, kind: str = "restoring") -> None:
        self.folder, self.journal, self.kind = folder, folder / "journal.db", kind
        self.vendor = DictVendor({})

    @property
    def mirror(self) -> Provider:
        return plain(self.folder / "mirror.db") if self.kind == "restoring" else self.vendor.fresh()

    def client(self, mirror: Provider | None = None, primary: Provider | None = None, **options: Any) -> AsyncMemory:
        options = {"provider": mirror or self.mirror, "journal": self.journal, "sample": 0.0, **options}
        return AsyncMemory(primary or plain(self.folder / "primary.db"), mirror=options, retries=0)

    def status(self) -> Any:
        return mirror_status(self.journal)

    async def caught_up(self, within: float = 60) -> None:
        await until(lambda: self.status().backlog == 0, within)

    async def catch_up(self) -> None:
        async with self.client():
            await self.caught_up()

    async def same(self, *users: str) -> int:
        """Check that both hold the same, and return how many records that is."""
        here = await self._state(plain(self.folder / "primary.db"), users)
        assert await self._state(self.mirror, users) == here
        return len(here)

    async def _state(self, provider: Provider, users: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        names = COMPARED + (RESTORED if self.kind == "restoring" else ())
        async with AsyncMemory(provider) as memory:
            for user in users:
                records = [record async for record in memory.iter(user)]
                made: dict[str, Any] = {r.id: r.extensions.get("x-migrated", {"id": r.id}) for r in records}
                for record in records:
                    wire, origin = record.to_wire(), made[record.id]["id"]
                    assert origin not in found, "twice"
                    found[origin] = {name: wire.get(name) for name in names} | {
                        "extensions": {n: v for n, v in record.extensions.items() if n != "x-migrated"},
                        "supersedes": sorted(made[id]["id"] for id in record.supersedes if id in made),
                    }
        return found


async def write(memory: AsyncMemory, dice: random.Random, users: list[str], ids: dict[str, list[str]]) -> None:
    user = dice.choice(users)
    mine = ids.setdefault(user, [])
    match dice.randrange(10):
        case 0 if mine:
            await memory.update(dice.choice(mine), user_id=user, content=f"changed {dice.random()}", scope="a/b")
        case 1 if mine:
            await memory.delete(mine.pop(dice.randrange(len(mine))), user_id=user)
        case 2:
            text = f"put {dice.random()}"
            record = await memory.put(text, user_id=user, key=f"k{dice.randrange(3)}", tags=["t"], x_note={"n": 1})
            mine[:] = [*{*mine, record.id}]
        case 3 if mine:
            old = dice.choice(mine)
            mine.append((await memory.add(f"newer {dice.random()}", user_id=user, supersedes=[old])).id)
        case 4:
            items = [{"content": f"batch {dice.random()}", "user_id": user} for _ in range(3)]
            mine += [record.id for record in await memory.add_many(items) if not isinstance(record, Exception)]
        case 5 if mine and dice.random() < 0.1:
            await memory.delete_all(user)
            mine.clear()
        case _:
            text, key = f"note {dice.random()}", None if dice.random() < 0.5 else f"once {dice.random()}"
            mine.append((await memory.add(text, user_id=user, idempotency_key=key, confidence=0.5)).id)
