"""`demo`: what a memory backend does, in five steps, each with the Python that does the same."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from openproto import AsyncMemory, SearchResult
from openproto.cli.call import Call
from openproto.cli.clean import clean_line
from openproto.cli.command import CARE, command
from openproto.cli.output import count

EMBEDDED = "sqlite"
"""The backend that is a file: the demonstration gives it a temporary one."""

_FACTS = (
    ("Ada is a vegetarian and allergic to hazelnuts", "food"),
    ("Ada writes Python with type hints and short functions", "coding/style"),
    ("Ada tests against real databases, never against mocks", "coding/tests"),
)
_PARIS, _LISBON = "Ada lives in Paris", "Ada lives in Lisbon"


@dataclass(slots=True)
class Step:
    """A step of the demonstration: its title, the Python that does it, and what came of each line of it."""

    title: str
    done: list[dict[str, Any]] = field(default_factory=list)


@command(CARE)
async def demo(call: Call) -> None:
    """Store, search, replace, and recall memories of an invented user, step by step; nothing is left behind.

    sqlite works in a temporary file unless --path names one.
    """
    target = call.target()
    async with AsyncExitStack() as stack:
        where = ""
        if target.name == EMBEDDED and not call.common.path:
            folder = stack.enter_context(TemporaryDirectory(prefix="openproto-demo-"))
            target.provider_options["path"] = str(Path(folder) / "memory.db")
            where = ", in a temporary file"
        memory = await stack.enter_async_context(call.client(target))
        tour = _Tour(call, memory, target.name)
        tour.say(f"openproto demo on {target.name}{where}", "bold")
        await tour.run()
    if call.out.as_json:
        call.out.json({"provider": target.name, "steps": [asdict(step) for step in tour.steps]})
        return
    other = "postgres" if target.name == EMBEDDED else EMBEDDED
    tour.say("\nAnother backend is another name, and nothing else:", "bold")
    tour.say(f'   >>> memory = Memory("{other}")\n   $ openproto demo --provider {other}')


class _Tour:
    """The five steps over one open client. The Python shown is `Memory`'s; `AsyncMemory` wants an `await` before it."""

    def __init__(self, call: Call, memory: AsyncMemory, provider: str) -> None:
        self._call = call
        self._memory = memory
        self._provider = provider
        self._user = f"ada-{uuid.uuid4().hex[:12]}"
        self.steps: list[Step] = []

    async def run(self) -> None:
        """Run the steps; the invented user's memories are removed however they end."""
        left = True
        try:
            await self._steps()
            self._title("Forget")
            deleted = await self._memory.delete_all(self._user)
            left = False
            self._show("memory.delete_all(ada)", f"{count(deleted, 'memory')} deleted, nothing left")
        finally:
            if left:
                await self._memory.delete_all(self._user)

    async def _steps(self) -> None:
        memory, ada = self._memory, self._user
        self._title("Remember")
        self._show(f'memory = Memory("{self._provider}")')
        for content, scope in _FACTS:
            await memory.add(content, user_id=ada, scope=scope)
            self._show(f'memory.add("{content}", user_id=ada, scope="{scope}")')
        paris = await memory.add(_PARIS, user_id=ada, scope="home")
        self._show(f'paris = memory.add("{_PARIS}", user_id=ada, scope="home")', "4 memories stored")

        self._title("Search, in a scope and all beneath it")
        question = "How is code for Ada written and tested?"
        results = await memory.search(question, ada, scope="coding")
        self._show(f'memory.search("{question}", ada, scope="coding")', *_spell(results))

        self._title("Facts change: the new one supersedes the old, and the past can still be asked")
        may = datetime(2020, 5, 1, tzinfo=UTC)
        self._show("may = datetime(2020, 5, 1, tzinfo=UTC)")
        await memory.add(_LISBON, user_id=ada, scope="home", valid_from=may, supersedes=[paris.id])
        self._show(f'memory.add("{_LISBON}", user_id=ada, scope="home", valid_from=may, supersedes=[paris.id])')
        question = "Where does Ada live?"
        results = await memory.search(question, ada, scope="home")
        self._show(f'memory.search("{question}", ada, scope="home")', *_spell(results))
        results = await memory.search(question, ada, scope="home", as_of=may - timedelta(days=1))
        self._show(f'memory.search("{question}", ada, scope="home", as_of=may - timedelta(days=1))', *_spell(results))

        self._title("Context for a prompt: cited, and never over its token budget")
        block = await memory.context("Cook a vegetarian dinner for Ada", ada, token_budget=60)
        self._show(
            'memory.context("Cook a vegetarian dinner for Ada", ada, token_budget=60)',
            *block.text.splitlines(),
            f"({block.token_count} of 60 tokens)",
        )

    def _title(self, title: str) -> None:
        self.steps.append(Step(title))
        self.say(f"\n{len(self.steps)}. {title}", "bold")

    def _show(self, code: str, *output: str) -> None:
        self.steps[-1].done.append({"python": code, "output": output})
        self.say(f"   >>> {code}", "cyan")
        for line in output:
            self.say(f"   {clean_line(line)}")

    def say(self, text: str, style: str = "") -> None:
        """Print a line, unless a program wants JSON."""
        if not self._call.out.as_json:
            self._call.out.line(text, style)


def _spell(results: list[SearchResult]) -> list[str]:
    return [f"{result.score:.2f}  {result.memory.content}" for result in results]
