"""Search: the best current records first, of this moment's contents, and no others."""

from __future__ import annotations

from openproto import InvalidRequestError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal, raises
from openproto_conformance.model.ranking import part_faults

area = Area("search")

FACTS = (
    "Ann prefers green tea to coffee in the morning",
    "The cat sleeps on the window sill all afternoon",
    "Bob's bicycle has a flat tyre and needs a new chain",
    "The quarterly report is due on the last Friday of March",
    "Our production database runs on three machines in Frankfurt",
    "She plays the cello in a string quartet",
    "The recipe wants two eggs, flour, and a pinch of salt",
    "The train to Vienna leaves at seven from platform nine",
)
ODD_QUERIES = (
    "tea AND (coffee",
    "tea OR NOT",
    "NEAR(tea coffee, 2)",
    "*",
    "te*",
    "^tea",
    '"',
    '"tea',
    "tea'; DROP TABLE memories; --",
    "content:tea",
    "-tea +coffee",
    "tea & | ! <-> coffee:*",
    "%_%",
    "\\",
    "{}[]()",
    "???",
    "the of and",
    "👩‍👩‍👧‍👦",
    "\u0301",
    "\x01",
    "a" * 5000,
    "tea " * 2000,
)
SCRIPTS = (
    ("Cyrillic", "Анна любит зелёный чай", "чай"),
    ("Greek", "Η Άννα πίνει τσάι το πρωί", "τσάι"),
    ("Han", "安娜喜欢喝绿茶", "绿茶"),
    ("Japanese", "アンナは緑茶が好きです", "緑茶"),
    ("Hangul", "안나는 녹차를 좋아합니다", "녹차를"),
    ("Arabic", "آنا تحب الشاي الأخضر", "الشاي"),
    ("Hebrew", "אנה אוהבת תה ירוק", "ירוק"),
    ("Thai", "แอนนาชอบชาเขียว", "ชาเขียว"),
    ("accents", "Café au lait à Besançon", "Besançon"),
)


@area.case("add", "search", hint="the order and the range of scores, after every weighting and rescaling")
async def results_come_best_first(bench: Bench) -> None:
    """Results are sorted by score, scores lie in [0, 1], and no record comes twice."""
    await _plant(bench)
    words = "grey zeppelin over the silent lake".split()
    items = [{"content": " ".join(words[:n]), "user_id": bench.user()} for n in (3, 1, 6, 2, 5)]
    await bench.add_many(items)
    for query in (" ".join(words), *FACTS, "green tea in the morning", "a train on Friday", "the"):
        hits = await bench.client.search(query, bench.user(), limit=100)
        scores = [hit.score for hit in hits]
        equal(scores, sorted(scores, reverse=True), f"the scores for {query!r}, which must fall")
        ensure(all(0 <= score <= 1 for score in scores), f"a score for {query!r} is outside [0, 1]: {scores}")
        equal(len({hit.memory.id for hit in hits}), len(hits), f"the number of distinct records for {query!r}")


@area.case("add", "search", hint="ranking: a record asked for in its own words must come first")
async def its_own_words_find_a_record_first(bench: Bench) -> None:
    """A query in the very words of one record finds that record first."""
    await _plant(bench)
    for fact in FACTS:
        hits = await bench.client.search(fact, bench.user(), limit=3)
        equal(hits[0].memory.content if hits else None, fact, "the first result")


@area.case("add", "search", hint="`limit` of `search`: at most so many, and the best of them")
async def a_search_keeps_to_its_limit(bench: Bench) -> None:
    """`limit` cuts the results short and changes nothing else; without it there are at most ten."""
    user = bench.user()
    await bench.add_many([{"content": f"a note about rivers, number {n}", "user_id": user} for n in range(30)])
    most = min(100, bench.capabilities.limits.max_search_results or 100)
    whole = [hit.memory.id for hit in await bench.client.search("note about rivers", user, limit=min(30, most))]
    equal(len(whole), min(30, most), "the number of results where 30 records match")
    for limit in (1, 2, 7):
        found = await bench.found("note about rivers", user, limit=limit)
        equal(found, whole[:limit], f"the results with limit={limit}")
    equal(len(await bench.client.search("note about rivers", user)), 10, "the number of results without a limit")


@area.case("add", "search", hint="min_score: compared with the score that the result shows, and inclusive")
async def min_score_drops_what_is_below(bench: Bench) -> None:
    """`min_score` drops the results below it, keeps those at it or above, and changes no score."""
    await _plant(bench)
    whole = await bench.client.search("green tea and a cello in the morning", bench.user(), limit=100)
    ensure(len(whole) > 1, "the query must find more than one record")
    for bound in {0.0, 1.0, 0.5, *(hit.score for hit in whole)}:
        hits = await bench.client.search(
            "green tea and a cello in the morning", bench.user(), limit=100, min_score=bound
        )
        wanted = {hit.memory.id for hit in whole if hit.score >= bound}
        equal({hit.memory.id for hit in hits}, wanted, f"the ids with min_score={bound}")
        ensure(all(hit.score >= bound for hit in hits), f"a score is below min_score={bound}")


@area.case("add", "search", hint="`explain`: it changes no result, and what adds to a score is all that it is made of")
async def a_score_is_explained_as_declared(bench: Bench) -> None:
    """With `explain` the results are the same, and the parts of each score add up to it; they are None undeclared."""
    await _plant(bench)
    for turn, text in enumerate(("Which tea shall it be?", "The smoked one", "There is none left")):
        await bench.add(text, user_id=bench.user(), x_openproto={"conversation": "tea", "turn": turn})
    declared = bench.capabilities.x_openproto.support.get("explain", "none") != "none"
    for query in ("green tea and a cello in the morning", "smoked tea"):
        plain = await bench.client.search(query, bench.user(), limit=100)
        told = await bench.client.search(query, bench.user(), limit=100, explain=True)
        shown = [[(hit.memory.id, hit.score) for hit in hits] for hits in (plain, told)]
        equal(shown[1], shown[0], f"the ids and scores for {query!r} with explain")
        for hits, explained in ((plain, False), (told, declared)):
            for hit in hits:
                equal(
                    part_faults(hit, explained=explained), [], f"what is wrong with the parts of {hit.memory.content!r}"
                )


@area.case("add", "search", "delete", hint="the index: a delete must reach it in the same transaction")
async def a_deleted_record_is_not_found(bench: Bench) -> None:
    """What was deleted, one by one or all at once, is not found any more."""
    user = bench.user()
    gone = await bench.add("the zeppelin is grey", user_id=user)
    kept = await bench.add("the zeppelin is red", user_id=user)
    equal(set(await bench.found("zeppelin", user)), {gone.id, kept.id}, "the ids found before")
    await bench.client.delete(gone.id, user_id=user)
    equal(await bench.found("zeppelin", user), [kept.id], "the ids found after the delete")
    if "list" in bench.capabilities.verbs:
        await bench.client.delete_all(user)
        equal(await bench.found("zeppelin", user), [], "the ids found after delete_all")


@area.case("add", "search", "update", hint="the index: an update of content must replace the old words, and the vector")
async def an_update_replaces_the_old_words(bench: Bench) -> None:
    """After an update, the new words find the record, the old ones do not, and results show the new text."""
    user = bench.user()
    for n in range(5):
        await bench.add(f"unrelated filler number {n}", user_id=user)
    record = await bench.add("the password hint is zeppelin", user_id=user)
    await bench.indexed(await bench.client.update(record.id, content="the hint is now bathysphere"))
    equal((await bench.found("bathysphere", user))[:1], [record.id], "the first result for the new word")
    for query in ("zeppelin", "bathysphere"):
        texts = [hit.memory.content for hit in await bench.client.search(query, user, limit=100)]
        ensure(not any("zeppelin" in text for text in texts), f"a search for {query!r} shows the old text")
    if not bench.capabilities.features.vector_search:
        equal(await bench.found("zeppelin", user), [], "the ids found by the old word")


@area.case(
    "add",
    "search",
    "update",
    features=("scopes",),
    hint="filters in the index: an update of scope or tags must reach it",
)
async def an_update_moves_a_record_between_filters(bench: Bench) -> None:
    """After an update of scope or tags, search finds the record by the new ones and not by the old."""
    user = bench.user()
    record = await bench.add("the zeppelin is grey", user_id=user, scope="old", tags=["old"])
    await bench.indexed(await bench.client.update(record.id, scope="new", tags=["new"]))
    for filter in ("scope", "tag"):
        equal(await bench.found("zeppelin", user, **{filter: "new"}), [record.id], f"found by the new {filter}")
        equal(await bench.found("zeppelin", user, **{filter: "old"}), [], f"found by the old {filter}")


@area.case("add", "get", "search", hint="what a result carries: the record as `get` returns it, not an index's copy")
async def a_result_is_the_whole_record(bench: Bench) -> None:
    """The memory in a result equals what `get` returns, also after an update."""
    user = bench.user()
    record = await bench.add("the zeppelin is grey", user_id=user, tags=["air"], confidence=0.25, x_note={"a": [1]})
    hits = await bench.client.search("zeppelin", user)
    equal(hits[0].memory, await bench.client.get(record.id), "the record in the result")
    if "update" in bench.capabilities.verbs:
        await bench.indexed(await bench.client.update(record.id, tags=["sky"], confidence=None))
        hits = await bench.client.search("zeppelin", user)
        equal(hits[0].memory, await bench.client.get(record.id), "the record in the result after an update")


@area.case("add", "search", hint="ties and approximations: one query over one store must have one answer")
async def a_search_repeats_itself(bench: Bench) -> None:
    """The same search over the same records gives the same results in the same order."""
    user = bench.user()
    await bench.add_many([{"content": "all of these are equal", "user_id": user}] * 20)
    first = await bench.client.search("these are equal", user, limit=10)
    for _ in range(3):
        equal(await bench.client.search("these are equal", user, limit=10), first, "the results of the same search")


@area.case(
    "add", "search", hint="the query language of the index: every query is plain text, and must be quoted as such"
)
async def a_query_is_plain_text(bench: Bench) -> None:
    """Operators, quotes, wildcards, and very long queries are text like any other: no error, no special meaning."""
    await _plant(bench)
    for query in ODD_QUERIES:
        hits = await bench.client.search(query, bench.user(), limit=100)
        ensure(all(hit.memory.user_id == bench.user() for hit in hits), f"{query[:40]!r} found another user's record")
    star = await bench.client.search("qqq*", bench.user(), min_score=0.99)
    equal(star, [], "the results at min_score 0.99 of words that nothing holds")


@area.case("search", hint="a blank query: refused before the backend is asked")
async def a_blank_query_is_invalid(bench: Bench) -> None:
    """A query that is empty or blank is invalid_request."""
    for query in ("", " ", "\n\t"):
        await raises(InvalidRequestError, bench.client.search, query, bench.user())
        await raises(InvalidRequestError, bench.client.context, query, bench.user())


@area.case("search", hint="a search of nothing: an empty list, not an error")
async def nothing_is_found_for_a_new_user(bench: Bench) -> None:
    """A user without records finds nothing."""
    equal(await bench.client.search("anything at all", bench.user()), [], "the results")


@area.case(
    "add", "search", features=("keyword_search",), hint="keyword search in scripts without spaces, and with accents"
)
async def words_of_every_script_are_found(bench: Bench) -> None:
    """A word in any script finds the record that holds it."""
    user = bench.user()
    records = {script: await bench.add(text, user_id=user) for script, text, _ in SCRIPTS}
    for script, _, word in SCRIPTS:
        equal((await bench.found(word, user))[:1], [records[script].id], f"the first result for a word in {script}")


async def _plant(bench: Bench) -> None:
    await bench.add_many([{"content": fact, "user_id": bench.user()} for fact in FACTS])
