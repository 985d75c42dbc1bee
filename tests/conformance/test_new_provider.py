"""`openproto new-provider` writes a package that conforms before its author has changed a line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from openproto_conformance import run

from openproto import Provider
from openproto.cli import main

EVERY_DAY = ("basics", "idempotency", "isolation", "histories_of_everything")


@pytest.mark.parametrize(
    ("base", "only"),
    [
        ("emulated", EVERY_DAY),
        ("provider", EVERY_DAY),
        *(pytest.param(base, (), marks=pytest.mark.full) for base in ("emulated", "provider")),
    ],
)
def test_what_it_writes_conforms(
    base: str, only: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-provider", "my-notes", "--base", base]) == 0
    folder = tmp_path / "my-notes-memory"
    module = f"my_notes_memory_{base}"
    spec = importlib.util.spec_from_file_location(module, folder / "my_notes_memory.py")
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module, package)
    spec.loader.exec_module(package)

    def provider() -> Provider:
        made: Provider = package.MyNotes(str(tmp_path / "notes.db"))
        return made

    report = run(provider, quick=True, only=only)
    assert report.verdict == ("incomplete" if only else "conforms"), report.to_markdown()
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["openproto.providers"] == {"my-notes": "my_notes_memory:MyNotes"}
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,I,UP,B"]
    subprocess.run([*ruff, str(folder)], check=True, timeout=60)
    assert "class TestMyNotes(ProviderSuite)" in (folder / "tests/test_my_notes_memory.py").read_text()
    assert "openproto conformance my-notes" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sqlite"], "installed already"),
        (["Acme"], "cannot be a provider's name"),
        (["../acme"], "cannot be a provider's name"),
        (["class"], "cannot be a provider's name"),
        (["acme", "--folder", "."], "is there already"),
        (["acme", "--base", "magic"], "magic"),
        ([], "NAME"),
    ],
)
def test_wrong_usage_is_2_and_writes_nothing(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-provider", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
