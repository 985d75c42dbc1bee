"""`Memory`: the same verbs for code without an event loop, from any thread, through forks and interrupts."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from fake_provider import FakeProvider, hang, record
from test_client_lifecycle import CALLS

from openproto import Memory, MemoryPage, NotFoundError, ProviderTimeoutError, UnauthorizedError
from openproto.client.loop import background_loop

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")
SYNC: dict[str, Callable[[Memory], Any]] = {
    **{name: call for name, call in CALLS.items() if name != "iter"},  # type: ignore[dict-item]
    "iter": lambda m: list(m.iter("ada")),
}


@pytest.mark.parametrize("call", SYNC.values(), ids=SYNC.keys())
def test_each_verb_answers_without_an_event_loop(call: Callable[[Memory], Any]) -> None:
    provider = FakeProvider()
    with Memory(provider) as memory:
        assert not asyncio.iscoroutine(call(memory))
    assert (provider.opens, provider.closes) == (1, 1)


@pytest.mark.parametrize("call", SYNC.values(), ids=SYNC.keys())
def test_each_verb_after_closing_says_that_memory_is_closed(call: Callable[[Memory], Any]) -> None:
    provider = FakeProvider()
    memory = Memory(provider)
    memory.get("m1")
    memory.close()
    memory.close()
    with pytest.raises(RuntimeError) as caught:
        call(memory)
    assert str(caught.value) == "Memory is closed"
    assert (provider.calls, provider.closes) == (["get"], 1)


@pytest.mark.promise(35)
def test_errors_are_those_of_the_async_client() -> None:
    with Memory(FakeProvider(acts=[NotFoundError("gone")])) as memory, pytest.raises(NotFoundError) as caught:
        memory.get("m1")
    assert caught.value.provider == "fake"


def test_arguments_reach_the_provider_unchanged() -> None:
    provider = FakeProvider()
    with Memory(provider) as memory:
        memory.add("tea", user_id="ada", scope="a", tags=["t"], idempotency_key="k", x_mem0=1)
        memory.search("tea", "ada", scope="a", tag="t", limit=3, min_score=0.5)
        memory.list("ada", scope="a", tag=["t", "u"], limit=3)
        memory.audit("ada", app="notes", memory_id="m1", limit=3)
    assert provider.keys == ["k"]
    assert provider.inputs[0].extensions == {"x-mem0": 1}
    search, listing, audit = provider.requests[1:]
    assert (search.scope, search.tags, search.limit, search.min_score) == ("a", ("t",), 3, 0.5)
    assert (listing.scope, listing.tags, listing.limit) == ("a", ("t", "u"), 3)
    assert (audit.app, audit.memory_id, audit.limit) == ("notes", "m1", 3)


def test_entering_opens_and_a_bad_backend_fails_there() -> None:
    with pytest.raises(UnauthorizedError), Memory(FakeProvider(opening=[UnauthorizedError("no")])):
        pytest.fail("the block ran")


def test_leaving_a_block_by_an_error_closes() -> None:
    provider = FakeProvider()
    with pytest.raises(ZeroDivisionError), Memory(provider):
        raise ZeroDivisionError
    assert provider.closes == 1


def test_a_verb_that_hangs_ends_in_a_provider_timeout() -> None:
    provider = FakeProvider(acts=[hang])
    with Memory(provider, timeout=0.05) as memory, pytest.raises(ProviderTimeoutError):
        memory.get("m1")
    assert provider.cancelled == ["get"]


@pytest.mark.promise(90)
def test_one_client_serves_any_number_of_threads() -> None:
    provider = FakeProvider(acts=[lambda: asyncio.sleep(0.01)] * 64)
    with Memory(provider) as memory, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: memory.get(f"m{n}").id, range(64)))
    assert found == [f"m{n}" for n in range(64)]
    assert provider.opens == 1
    assert provider.most_running > 1


def test_all_clients_share_one_daemon_thread() -> None:
    with Memory(FakeProvider()) as one, Memory(FakeProvider()) as two:
        one.get("m1")
        two.get("m1")
        threads = [thread for thread in threading.enumerate() if thread.name == "openproto-loop"]
    assert [thread.daemon for thread in threads] == [True]


def test_the_callers_context_variables_are_seen_by_the_provider() -> None:
    seen: list[str] = []

    async def look() -> None:
        seen.append(WHO.get())

    token = WHO.set("ada")
    with Memory(FakeProvider(acts=[look])) as memory:
        memory.get("m1")
    WHO.reset(token)
    assert seen == ["ada"]


@pytest.mark.promise(12)
def test_calling_on_the_background_loop_itself_is_refused_instead_of_waiting_for_ever() -> None:
    other = Memory(FakeProvider())

    async def nested() -> None:
        other.get("m1")

    with Memory(FakeProvider(acts=[nested])) as memory, pytest.raises(RuntimeError, match="own background loop"):
        memory.get("m1")


@pytest.mark.promise(12)
@pytest.mark.promise(65)
async def test_memory_can_be_used_where_another_loop_runs() -> None:
    with Memory(FakeProvider()) as memory:
        assert memory.get("m1").id == "m1"


def pages(provider: FakeProvider) -> None:
    provider.pages = [
        MemoryPage(items=[record("a"), record("b")], next_cursor="c1"),
        MemoryPage(items=[record("c")]),
    ]


def test_iter_yields_from_every_page() -> None:
    provider = FakeProvider()
    pages(provider)
    with Memory(provider) as memory:
        assert [found.id for found in memory.iter("ada", page_size=2)] == ["a", "b", "c"]
    assert [request.limit for request in provider.requests] == [2, 2]


def test_iter_may_be_left_early() -> None:
    provider = FakeProvider()
    pages(provider)
    with Memory(provider) as memory:
        assert next(memory.iter("ada")).id == "a"
        gc.collect()
    assert provider.calls == ["list"]


def test_add_many_takes_items_that_are_read_from_a_memory_on_the_way() -> None:
    source, target = FakeProvider(), FakeProvider()
    pages(source)
    with Memory(source) as old, Memory(target) as new:
        new.add_many({"content": found.content, "user_id": found.user_id} for found in old.iter("ada"))
    assert target.calls == ["add"] * 3


def test_items_are_read_in_the_callers_thread() -> None:
    threads: list[threading.Thread] = []

    def items() -> Any:
        threads.append(threading.current_thread())
        yield {"content": "tea", "user_id": "ada"}

    with Memory(FakeProvider()) as memory:
        memory.add_many(items())
    assert threads == [threading.current_thread()]


def test_a_client_that_is_dropped_while_open_warns() -> None:
    clients = [Memory(FakeProvider())]
    clients[0].get("m1")
    with pytest.warns(ResourceWarning, match=r"unclosed Memory on 'fake': call close\(\)"):
        drop(clients)


def drop(clients: list[Memory]) -> None:
    clients.clear()
    gc.collect()


def test_a_client_that_was_never_opened_is_dropped_in_silence() -> None:
    Memory(FakeProvider())
    gc.collect()


def test_the_repr_names_the_provider_and_no_option() -> None:
    assert repr(Memory(FakeProvider(), app="secret")) == "<Memory provider='fake'>"


def test_nothing_starts_before_the_first_call(run_python: Any) -> None:
    told = run_python(
        "import threading, openproto, fake_provider\n"
        "memory = openproto.Memory(fake_provider.FakeProvider())\n"
        "print(threading.active_count()); memory.get('m1'); print(threading.active_count()); memory.close()"
    )
    assert told.stdout.split() == ["1", "2"], told.stderr


def test_a_program_that_forgets_to_close_still_ends(run_python: Any) -> None:
    told = run_python("import openproto, fake_provider; openproto.Memory(fake_provider.FakeProvider()).get('m1')")
    assert told.returncode == 0


INTERRUPTED = """
import sys, time, fake_provider, openproto
async def hang():
    print("hanging", flush=True)
    await fake_provider.hang()
provider = fake_provider.FakeProvider(acts=[hang])
memory = openproto.Memory(provider)
try:
    memory.get("m1")
except KeyboardInterrupt:
    for _ in range(500):
        if provider.cancelled:
            break
        time.sleep(0.01)
    print("cancelled", provider.cancelled, "and then", memory.get("m2").id)
memory.close()
"""


def test_an_interrupt_cancels_the_call_and_leaves_the_client_usable(start_python: Any) -> None:
    process = start_python(INTERRUPTED)
    assert process.stdout.readline() == "hanging\n"
    time.sleep(0.1)  # the call is under way; let the main thread reach its wait
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out == "cancelled ['get'] and then m2\n", err


FORKED = """
import os, sys, warnings
import fake_provider, openproto
{before}
pid = os.fork()
if pid == 0:
    try:
        {child}
        sys.stdout.flush()
        os._exit(0)
    except BaseException as error:
        print("child:", type(error).__name__, error, flush=True)
        os._exit(1)
_, status = os.waitpid(pid, 0)
{parent}
sys.exit(os.waitstatus_to_exitcode(status))
"""


def forked(before: str, child: str, parent: str) -> str:
    return FORKED.format(before=before, child=child.replace("\n", "\n        "), parent=parent)


def test_a_child_process_opens_the_backend_anew_and_the_parents_client_goes_on(run_python: Any) -> None:
    told = run_python(
        forked(
            "memory = openproto.Memory(fake_provider.FakeProvider()); memory.get('m1')",
            "print('child', memory.get('m2').id, memory._memory._session.provider.opens, flush=True)\nmemory.close()",
            "print('parent', memory.get('m3').id, memory._memory._session.provider.opens); memory.close()",
        )
    )
    assert told.stdout.splitlines() == ["child m2 1", "parent m3 1"], told.stderr


def test_a_client_that_was_not_yet_used_can_be_used_after_a_fork(run_python: Any) -> None:
    told = run_python(
        forked(
            "memory = openproto.Memory(fake_provider.FakeProvider())",
            "print(memory.get('m1').id, flush=True)\nmemory.close()",
            "print(memory.get('m2').id); memory.close()",
        )
    )
    assert told.stdout.split() == ["m1", "m2"], told.stderr


def test_a_client_that_was_closed_stays_closed_after_a_fork(run_python: Any) -> None:
    told = run_python(
        forked(
            "memory = openproto.Memory(fake_provider.FakeProvider()); memory.get('m1'); memory.close()",
            "memory.get('m2')",
            "pass",
        )
    )
    assert told.stdout == "child: RuntimeError Memory is closed\n", told.stderr


def test_a_child_that_drops_the_parents_client_is_silent(run_python: Any) -> None:
    told = run_python(
        forked(
            "import gc; memory = openproto.Memory(fake_provider.FakeProvider()); memory.get('m1')",
            "memory.get('m2'); memory.close(); del memory; gc.collect()",
            "memory.close()",
        )
    )
    assert (told.returncode, told.stderr) == (0, "")


def test_a_sqlite_client_works_on_both_sides_of_a_fork(run_python: Any, tmp_path: Path) -> None:
    told = run_python(
        forked(
            f"memory = openproto.Memory('sqlite', path={str(tmp_path / 'm.db')!r}, embedder='none')\n"
            "memory.add('from before', user_id='ada')",
            "memory.add('from the child', user_id='ada')\nmemory.close()",
            "memory.add('from the parent', user_id='ada')\n"
            "print(sorted(r.content for r in memory.iter('ada'))); memory.close()",
        )
    )
    assert told.stdout == "['from before', 'from the child', 'from the parent']\n", told.stderr


def test_the_loop_of_memory_never_blocks_on_one_client() -> None:
    started = threading.Event()

    async def slow() -> None:
        started.set()
        await hang()

    stuck, quick = Memory(FakeProvider(acts=[slow]), timeout=5), Memory(FakeProvider())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stuck.get, "m1")
        assert started.wait(5)
        assert quick.get("m2").id == "m2"
        stuck._memory._session.provider.script["verb"] = []  # type: ignore[attr-defined]
        background_loop().call_soon_threadsafe(_cancel_hanging)
        assert waiting.exception(5) is not None
    stuck.close()
    quick.close()


def _cancel_hanging() -> None:
    for task in asyncio.all_tasks():
        if "Verbs.get" in repr(task.get_coro()):
            task.cancel()
