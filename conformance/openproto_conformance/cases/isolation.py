"""Isolation: nothing that one user says or does reaches another user's records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from openproto import InvalidRequestError, MemoryRecord, NotFoundError, OpenProtoError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal, raises

area = Area("isolation")

LOOK_ALIKES = (
    "ann ",
    "Ann",
    "ann/",
    "an_",
    "an%",
    "ann*",
    "%",
    "*",
    "ann\u200b",
    "a\u0301nn",
    "ánn",
    "ann'--",
    "nn",
    "annann",
)
FILTERS: tuple[dict[str, str], ...] = ({}, {"scope": "shared"}, {"scope": "*"}, {"tag": "shared"})
WORDS = "the zeppelin is grey"

Attack = Callable[[], Awaitable[object]]


@area.case(
    "add", "get", "update", "delete", hint="the user_id condition of get, update, and delete: in the statement itself"
)
async def another_users_record_is_not_found(bench: Bench) -> None:
    """With a user given, another user's record is NotFoundError, worded as an unknown id is, and stays as it was."""
    ann, bob = bench.user("ann"), bench.user("bob")
    record = await bench.add(WORDS, user_id=ann, tags=["a"])
    for verb, options in (("get", {}), ("update", {"content": "mine"}), ("update", {}), ("delete", {})):
        method = getattr(bench.client, verb)
        foreign = await raises(NotFoundError, method, record.id, user_id=bob, **options)
        unknown = await raises(NotFoundError, method, "no-such-id", user_id=bob, **options)
        told, wanted = (str(e).replace(i, "ID") for e, i in ((foreign, record.id), (unknown, "no-such-id")))
        equal(told, wanted, f"the message of {verb} for a foreign id, beside an unknown one")
    equal(await bench.client.get(record.id, user_id=ann), record, "the record afterwards")


@area.case("add", "list", "delete", hint="the user_id condition of list and delete_all, with every other filter")
async def listing_and_emptying_stay_with_the_user(bench: Bench) -> None:
    """`list` and `delete_all` with any filter see this user's records only, also for ids that look alike."""
    root = bench.user()
    ann, others = f"{root}ann", [f"{root}{name}" for name in LOOK_ALIKES]
    record = await bench.add(WORDS, user_id=ann, tags=["shared"], **bench.supported(scope="shared"))
    for other in others:
        for filter in (bench.supported(**filter) for filter in FILTERS):
            equal(await bench.inventory(other, **filter), [], f"what a look-alike user sees with {filter}")
            equal(await bench.client.delete_all(other, **filter), 0, f"what a look-alike user removes with {filter}")
        equal(await bench.inventory(other, since=record.created_at), [], "what a look-alike user sees since then")
    equal(await bench.inventory(ann), [record], "the user's own records")


@area.case(
    "add",
    "search",
    hint="the user_id condition of the search: in the index query, and again on every row that comes out",
)
async def search_stays_with_the_user(bench: Bench) -> None:
    """`search` and `context` never show a neighbour's memory, not even the only or the best one."""
    root = bench.user()
    ann = f"{root}ann"
    record = await bench.add(WORDS, user_id=ann, tags=["shared"], **bench.supported(scope="shared"))
    for other in (bench.user("bob"), *(f"{root}{name}" for name in LOOK_ALIKES)):
        for filter in (bench.supported(**filter) for filter in FILTERS):
            equal(await bench.client.search(WORDS, other, **filter), [], f"what another user finds with {filter}")
        equal(await bench.client.search(WORDS, other, min_score=0.0), [], "what another user finds with any score")
        equal((await bench.client.context(WORDS, other)).text, "", "another user's context")
    own = await bench.add("another zeppelin entirely", user_id=bench.user("bob"))
    equal(await bench.found(WORDS, bench.user("bob")), [own.id], "what a user with one record finds")
    equal(await bench.found(WORDS, ann), [record.id], "what the owner finds")


@area.case("add", "search", hint="over-fetching: a neighbour's thousand better matches must not use up the limit")
async def neighbours_take_no_place_in_a_search(bench: Bench) -> None:
    """However many better matches the neighbours have, the user's own record is found."""
    crowd = {"content": WORDS, "user_id": bench.user("bob")}
    await bench.add_many([crowd] * bench.size(1000, 200))
    own = await bench.add("a zeppelin, once", user_id=bench.user("ann"))
    equal(await bench.found(WORDS, bench.user("ann"), limit=1), [own.id], "the ids found with limit=1")


@area.case("get", hint="validation of user_id: blank is refused, never taken for everybody")
async def a_blank_user_is_nobody(bench: Bench) -> None:
    """A blank user id is invalid_request in every verb; it never means every user."""
    for user in ("", " ", "\t\n", "\u2003"):
        for attack in _by_user(bench, user).values():
            await raises(InvalidRequestError, attack)
        for verb in ("get", "update", "delete"):
            if verb in bench.capabilities.verbs:
                await raises(InvalidRequestError, getattr(bench.client, verb), "some-id", user_id=user)


@area.case(
    "add", "get", "list", "update", "delete", hint="the probe's last step names the verb: look at its user_id condition"
)
async def random_probes_reach_nothing_foreign(bench: Bench) -> None:
    """At random, over every verb, id, cursor, and key of the others: nothing foreign is seen, and nothing changed."""
    users = [f"{bench.user()}{name}" for name in ("ann", "bob", "ann%", "an_", "")]
    before: dict[str, list[MemoryRecord]] = {}
    for user in users:
        items = [
            {"content": f"{WORDS} {n}", "user_id": user, "idempotency_key": f"key-{n}", "tags": ["t"]} for n in range(6)
        ]
        await bench.add_many(items)
        before[user] = await bench.inventory(user)
    for step in range(bench.size(1000, 200)):
        attacker, victim = bench.random.sample(users, 2)
        await _probe(bench, attacker, victim, before, step)
    for user in users:
        equal(await bench.inventory(user), before[user], "a user's records after all probes")


@area.case("add", "list", hint="state shared between calls: user ids in attributes, buffers, or context variables")
async def users_at_once_do_not_mix(bench: Bench) -> None:
    """Many users working at the same time each see their own records, whole."""
    users = [bench.user(f"user {n}") for n in range(20)]

    async def work(user: str) -> None:
        for n in range(5):
            record = await bench.client.add(f"note {n} of {user}", user_id=user)
            equal((record.user_id, record.content), (user, f"note {n} of {user}"), "what add returned")
        contents = {record.content for record in (await bench.client.list(user)).items}
        equal(contents, {f"note {n} of {user}" for n in range(5)}, "what list returned")

    await asyncio.gather(*(work(user) for user in users))


async def _probe(bench: Bench, attacker: str, victim: str, before: dict[str, list[MemoryRecord]], step: int) -> None:
    """Try one thing with another user's id, cursor, or key."""
    client, choose = bench.client, bench.random
    target = choose.choice(before[victim])
    kind = choose.choice(("get", "update", "delete", "read", "cursor", "key", "supersedes"))
    if kind in ("get", "update", "delete"):
        options = {"content": "taken"} if kind == "update" else {}
        await raises(NotFoundError, getattr(client, kind), target.id, user_id=attacker, **options)
    elif kind == "read":
        name, read = choose.choice([*_by_user(bench, attacker).items()])
        if name not in ("add", "delete"):
            _check_own(await read(), attacker, step)
    elif kind == "cursor":
        cursor = (await client.list(victim, limit=2)).next_cursor
        await raises(InvalidRequestError, client.list, attacker, limit=2, cursor=cursor)
    elif kind == "key":
        n = choose.randrange(6)
        again = await client.add(f"{WORDS} {n}", user_id=attacker, idempotency_key=f"key-{n}", tags=["t"])
        ensure(
            again.id in {record.id for record in before[attacker]}, "a key led to a record that is not the user's own"
        )
    elif bench.capabilities.features.supports_supersession:
        await raises(NotFoundError, client.add, "new", user_id=attacker, supersedes=[target.id])


def _by_user(bench: Bench, user: str) -> dict[str, Attack]:
    """Return a call of each declared verb that takes a user id."""
    client = bench.client
    calls: dict[str, Attack] = {
        "add": lambda: client.add("note", user_id=user),
        "list": lambda: client.list(user),
        "search": lambda: client.search(WORDS, user, limit=100),
        "context": lambda: client.context(WORDS, user),
        "audit": lambda: client.audit(user),
        "delete": lambda: client.delete_all(user),
    }
    return {verb: call for verb, call in calls.items() if verb in bench.capabilities.verbs}


def _check_own(answer: object, user: str, step: int) -> None:
    """Check that every row of an answer, whatever its kind, is the user's own."""
    ensure(not isinstance(answer, OpenProtoError), f"step {step}: a read failed")
    rows = getattr(answer, "items", answer)
    for row in rows if isinstance(rows, list) else ():
        owner = getattr(getattr(row, "memory", row), "user_id", None)
        equal(owner, user, f"step {step}: the owner of a row in a {type(answer).__name__}")
