"""A background worker in threads: one Memory, one client, one queue, and facts instead of whole conversations.

The extractor is where another call of an LLM would find the facts; it runs in the queue, long after the user has
the answer. Give it a separate client that is not wrapped, or its own words would be captured as well.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

from openai import OpenAI

from openproto import Memory
from openproto.integrations.llm import CaptureQueue, Turn, wrap

user: ContextVar[str] = ContextVar("user")
JOBS = [
    ("ada", "I moved to Oslo. What is new?"),
    ("bob", "Hello!"),
    ("ada", "I like tea."),
    ("cleo", "I sing. And you?"),
]


def facts(turn: Turn) -> Iterator[str]:
    for sentence in (turn.user or "").replace("?", ".").split("."):
        if sentence.strip().startswith("I "):
            yield sentence.strip()


def main() -> None:
    with Memory.from_env() as memory, OpenAI() as client:
        queue = CaptureQueue(memory, extract=facts, max_workers=4, policy="wait")
        llm = wrap(client, queue, user_id=user)

        def work(job: tuple[str, str]) -> str:
            user.set(job[0])
            return llm.responses.create(model="gpt-5-mini", input=job[1]).output_text

        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(work, JOBS):
                print(answer)
        print("all stored:", queue.wait(timeout=10), "skipped:", queue.stats().skipped)
        found = memory.search_many(["ada", "bob", "cleo"], "Oslo, tea, singing", limit=5)
        for name, results in found.items():
            print(name, sorted(result.memory.content for result in results))


if __name__ == "__main__":
    main()
