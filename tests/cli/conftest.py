"""The command line in this process (`cli`), as a separate process (`run`), and on a terminal (`terminal`)."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import lasting
import pytest
from commandline import PROGRAM, Ended, Run

from openproto.cli import main


@pytest.fixture
def tmp_path() -> Path:
    """Return a folder in memory, because stores wait for the disk at every commit."""
    return Path(tempfile.mkdtemp(dir=lasting.folder("cli")))


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a new file, no embedder, and nothing of the developer's own settings."""
    for name in os.environ:
        if name.startswith(("OPENPROTO_", "OPENAI_", "PG")):
            monkeypatch.delenv(name)
    path = tmp_path / "memory.db"
    for name, value in (("PATH", str(path)), ("EMBEDDER", "none"), ("USER", "ada")):
        monkeypatch.setenv(f"OPENPROTO_{name}", value)
    monkeypatch.setenv("COLUMNS", "100")
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        status = main(arguments)
        said = capsys.readouterr()
        return Ended(status, said.out, said.err)

    return call


@pytest.fixture
def run() -> Run:
    def call(*arguments: str, stdin: str | bytes = b"", **environment: str) -> Ended:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        kept = {**os.environ, **environment}
        done = subprocess.run([*PROGRAM, *arguments], input=given, capture_output=True, timeout=60, env=kept)
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    return call


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command on a pseudo-terminal, typing `keys`, and return all that it showed."""

    def call(*arguments: str, keys: str = "") -> str:
        master, slave = pty.openpty()
        modes = termios.tcgetattr(slave)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        os.write(master, keys.encode())
        shown = bytearray()

        def read() -> None:
            with suppress(OSError):  # EIO: the other side has closed
                while chunk := os.read(master, 65536):
                    shown.extend(chunk)

        reader = threading.Thread(target=read)
        reader.start()
        with monkeypatch.context() as patched, open(slave, "w") as screen, open(os.dup(slave)) as keyboard:
            patched.setenv("TERM", "xterm")
            for name, file in (("stdin", keyboard), ("stdout", screen), ("stderr", screen)):
                patched.setattr(sys, name, file)
            main(arguments)
        reader.join()
        os.close(master)
        return shown.decode().replace("\r\n", "\n")

    return call


FAULTY = '''
from typing import Literal
from openproto import errors
from openproto.models import Capabilities, MemoryPage
from openproto.provider import Provider

class Faulty(Provider):
    """Fails as its options say."""

    name = "faulty"

    def __init__(self, code: str = "", *, when: Literal["open", "list"] = "list", api_key: str = "", url: str = "",
                 size: int = 1, ratio: float | None = None, loud: bool = False, names: list[str] | None = None) -> None:
        self.options = dict(size=size, ratio=ratio, loud=loud, names=names)
        self.code, self.when, self.secrets = code, when, f"{api_key} {url}"

    async def open(self):
        if self.when == "open":
            self.fail()

    async def list(self, query):
        if self.code == "options":
            raise errors.ProviderError(repr(self.options))
        self.fail()
        return MemoryPage(items=[])

    async def describe(self):
        return {"data": "nowhere at all", "engine": "Faulty 9"}

    def fail(self):
        if self.code == "bug":
            raise KeyError("a secret memory")
        for kind in [*errors.OpenProtoError.__subclasses__(), *errors.ProviderError.__subclasses__()]:
            if kind.code == self.code:
                raise kind(f"it failed: {self.secrets}")
'''


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that registers `faulty`, and `broken`, whose package is missing."""
    site = tmp_path / "site"
    info = site / "faulty-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "faulty_provider.py").write_text(FAULTY)
    (site / "broken_provider.py").write_text("import no_such_sdk\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.2\nProvides-Extra: broken\n")
    points = "faulty = faulty_provider:Faulty\nbroken = broken_provider:Broken\n"
    (info / "entry_points.txt").write_text(f"[openproto.providers]\n{points}")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("OPENPROTO_RETRIES", "0")
