"""The smallest program that cleans up after itself, on whichever backend OPENPROTO_PROVIDER names."""

import asyncio

from openproto import AsyncMemory


async def main() -> None:
    memory = AsyncMemory.from_env()
    try:
        added = await memory.add("Ada takes her coffee black", user_id="ada")
        (record,) = await memory.wait_for_ingest([added.id], "ada")  # at once where the backend indexes while it adds
        print(record.status, record.id == added.id)
        for hit in await memory.search("coffee", "ada", limit=3):
            print(hit.memory.id == record.id, hit.memory.content)
    finally:
        await memory.aclose()


if __name__ == "__main__":
    asyncio.run(main())
