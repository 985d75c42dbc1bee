"""Questions that name nothing still find what is known: twelve facts, twenty vague questions."""

from __future__ import annotations

from typing import Any

FACTS = [
    "I am allergic to nuts",
    "I have been a vegetarian for ten years",
    "My name is Ada and I turn forty in June",
    "I live in Bergen, where it rains most days",
    "I work as a nurse on night shifts",
    "My daughter Mia is six and loves dinosaurs",
    "I am training for a half marathon",
    "I get cold easily and own no warm coat",
    "My budget for holidays is small this year",
    "I am afraid of flying",
    "I play the cello in an amateur orchestra",
    "I am learning Portuguese",
]
FOOD, SELF, PLACE, WORK, CHILD, SPORT, COLD, MONEY, FLYING, MUSIC, LANGUAGE = (
    {0, 1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11},
)  # fmt: skip
ALL = set(range(12))
QUESTIONS = [
    ("What do you remember about me?", ALL), ("What do you know of me?", ALL), ("Who am I?", ALL),
    ("Plan my dinner", FOOD), ("What should I wear tomorrow?", COLD | PLACE), ("Suggest a present for me", ALL),
    ("Where should we go this summer?", MONEY | FLYING | CHILD), ("Help me relax", MUSIC | SPORT | WORK),
    ("Plan my weekend", ALL), ("How can I save time?", WORK | SPORT), ("Recommend a restaurant", FOOD | PLACE),
    ("What could we do with the kid?", CHILD), ("Any ideas for my birthday?", SELF | FOOD | CHILD),
    ("How should I travel?", FLYING | MONEY), ("Write an introduction of me", ALL),
    ("What are my hobbies?", MUSIC | SPORT),
    ("What should I cook?", FOOD), ("When do I sleep?", WORK), ("Which book would I like?", LANGUAGE | MUSIC | SPORT),
    ("Make me a plan for the week", ALL),
]  # fmt: skip


async def test_a_vague_question_is_answered_from_what_is_there(store: Any) -> None:
    async with store.client("local") as memory:
        await memory.add_many([{"content": fact, "user_id": "ada"} for fact in FACTS])
        found = 0
        for question, matter in QUESTIONS:
            block = await memory.context(question, "ada", token_budget=500)
            assert all(fact in block.text for fact in FACTS), question
            hits = await memory.search(question, "ada")
            found += any(FACTS.index(hit.memory.content) in matter for hit in hits)
    assert found >= 18
