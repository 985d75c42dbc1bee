"""Results in a console, a notebook, and a data frame."""

from __future__ import annotations

from datetime import UTC, datetime

from openproto.models import Citation, ContextBlock, MemoryPage, MemoryRecord, SearchResult

HOSTILE = "<script>alert(1)</script>" + "tea " * 200
RECORD = MemoryRecord(id="m1", content=HOSTILE, user_id="ada", created_at=datetime(2026, 1, 1, tzinfo=UTC), scope="a")


def test_a_page_is_a_sequence_of_its_records() -> None:
    page = MemoryPage(items=[RECORD, RECORD])
    assert [record.id for record in page] == ["m1", "m1"]
    assert (len(page), page[1], page.to_dicts()[0]["created_at"]) == (2, RECORD, RECORD.created_at)
    assert MemoryPage(items=[])  # as truthy as it always was
    assert MemoryPage.model_validate(page.model_dump()) == page
    assert page.to_wire() == {"items": [RECORD.to_wire()] * 2}


def test_a_repr_is_short_and_holds_no_content_and_html_shows_it_as_text() -> None:
    results = [
        RECORD,
        MemoryPage(items=[RECORD] * 100, next_cursor="c"),
        SearchResult(memory=RECORD, score=0.5),
        ContextBlock(text=HOSTILE, citations=[Citation(memory_id="m1", score=0.5)], token_count=3),
    ]
    for result in results:
        assert len(repr(result)) < 120
        assert len(str(result)) < 120
        assert "tea" not in repr(result) + str(result)
        html = result._repr_html_()
        assert "<script>" not in html
        assert "&lt;script&gt;" in html
    assert repr(RECORD) == "MemoryRecord(id='m1', user_id='ada', scope='a')"
