"""From options and the environment to a provider: types, precedence, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import Run

from openproto.cli.redact import Redactor

pytestmark = pytest.mark.usefixtures("faulty")


def test_texts_become_what_the_constructor_wants(cli: Run) -> None:
    given = ["-o", "size=3", "-o", "ratio=0.5", "-o", "loud=yes", "-o", 'names=["a", "b"]']
    ended = cli("list", "-p", "faulty", "-o", "code=options", *given)
    assert "{'size': 3, 'ratio': 0.5, 'loud': True, 'names': ['a', 'b']}" in ended.err


@pytest.mark.parametrize("given", ["size=qqq", "loud=qqq", "ratio=qqq", "names=qqq", "when=qqq", "retries=qqq"])
def test_a_value_of_another_type_is_refused_by_name_and_not_repeated(cli: Run, given: str) -> None:
    ended = cli("list", "-p", "faulty", "-o", given)
    name, value = given.split("=")
    assert ended.status == 2
    assert f"--option {name}:" in ended.err
    assert value not in ended.err


def test_unknown_options_and_bad_variables_are_named(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = cli("list", "-p", "faulty", "-o", "sise=3")
    assert (ended.status, "did you mean 'size'" in ended.err, "api_key" in ended.err) == (2, True, True)
    assert cli("list", "-o", "retries=0", "-o", "close_timeout=1.5", "-o", "app=me").status == 0
    assert cli("list", "-o", "retries=-1").status == 2
    monkeypatch.setenv("OPENPROTO_TIMEOUT", "sk-secret")
    ended = cli("list")
    assert (ended.status, "OPENPROTO_TIMEOUT" in ended.err, "sk-secret" in ended.err) == (2, True, False)


def test_an_option_wins_over_the_environment(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.db"
    cli("add", "x", "--path", str(other))
    assert other.exists()
    assert cli("list").out == ""
    assert len(cli("list", "-o", f"path={other}").out.splitlines()) == 1
    monkeypatch.setenv("OPENPROTO_PROVIDER", "faulty")
    assert cli("list", "-o", "code=conflict").status == 6
    assert cli("list", "-p", "sqlite").status == 0


def test_what_the_redactor_hides() -> None:
    redact = Redactor(
        [("url", "postgresql://u:a@b:c/d@h/x"), ("token", "tok-1"), ("dsn", "host=h password=pw123 user=u")]
    )
    assert redact("a@b:c/d and tok-1 and pw123") == "*** and *** and ***"
    assert Redactor([("url", "postgresql://u:%70w1@h/x")])("pw1 %70w1") == "*** ***"
    assert Redactor([("size", "three"), ("url", "postgresql://h/x")])("three h x") == "three h x"
