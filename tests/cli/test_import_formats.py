"""Files that are no JSON Lines in UTF-8: one error says what the file is, however many lines it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import Run

LINES = [{"id": number, "content": f"note {number}", "user_id": "ada"} for number in (1, 2, 3)]
TEXT = "".join(json.dumps(line) + "\n" for line in LINES)
ONE_DOCUMENT = "one JSON document"


@pytest.mark.parametrize("command", ["import", "restore"])
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (TEXT.encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("utf-16-le"), "UTF-16"),
        (json.dumps(LINES).encode(), ONE_DOCUMENT),
        (json.dumps(LINES, indent=2).encode(), ONE_DOCUMENT),
        (b"\xef\xbb\xbf\n " + json.dumps(LINES, indent=2).encode(), ONE_DOCUMENT),
        (json.dumps({"results": LINES}, indent=1).encode(), ONE_DOCUMENT),
    ],
)
def test_another_format_is_one_error_and_stores_nothing(
    cli: Run, tmp_path: Path, command: str, data: bytes, told: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    ended = cli(command, str(file))
    assert (ended.status, ended.out) == (2, "")
    assert told in ended.err
    assert ended.err.count("error: ") == len(ended.err.splitlines()) - ended.err.count("hint: ") == 1
    assert "note" not in ended.err
    assert cli("list").out == ""


def test_a_first_line_that_is_broken_is_the_fault_of_that_line(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text('{"content":\n' + TEXT)
    ended = cli("import", str(file))
    assert (ended.status, ended.out) == (1, "3 memories stored, 1 line failed\n")


def test_ids_that_are_whole_numbers_are_ids(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    new = {"id": 4, "content": "new", "user_id": "ada", "supersedes": [1]}
    file.write_text(TEXT.replace("}\n", ', "superseded_by": 4}\n', 1) + json.dumps(new))
    for _ in range(2):
        ended = cli("import", str(file))
        assert (ended.status, ended.out) == (0, "4 memories stored, 1 supersession restored\n")
    records = cli("list", "--json").json["items"]
    assert sorted(record["x-imported"]["id"] for record in records) == [1, 2, 3, 4]
