"""One run of a command: its options, the backend they lead to, and where its results go."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from openproto import AsyncMemory, OpenProtoError, Provider, UnknownProviderError
from openproto.cli.coerce import coerce, pairs
from openproto.cli.options import Common
from openproto.cli.output import Output
from openproto.cli.redact import Redactor
from openproto.cli.reporting import Misuse
from openproto.registry import make_provider, provider_class, provider_options

APP = "openproto-cli"
"""How the commands call themselves in audit entries, unless OPENPROTO_APP says otherwise."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the options and the environment lead to: a provider's name and options, and the client's own options."""

    name: str
    provider_options: dict[str, Any]
    client_options: dict[str, Any]

    def make_provider(self) -> Provider:
        """Return the provider, unopened; a Misuse where it takes no such option or value."""
        try:
            return make_provider(self.name, self.provider_options)
        except (TypeError, ValueError) as error:
            raise Misuse(str(error), "`openproto providers --verbose` lists the options") from error


class Call:
    """What a command's body works with."""

    def __init__(self, common: Common) -> None:
        self.common = common
        self.out = Output(as_json=common.json)
        self.resume = ""
        """How to go on after an interruption; said when one comes."""
        self.hidden: list[str] = []
        """Options of other backends than the call's own, as NAME=VALUE."""

    @property
    def user(self) -> str:
        """The user that the command is about; a Misuse where none was named."""
        if not self.common.user:
            raise Misuse("whose memories? this command needs --user ID, or OPENPROTO_USER")
        return self.common.user

    @property
    def redact(self) -> Redactor:
        """What hides this call's secrets in a text."""
        given = [text.partition("=") for text in (*self.common.option, *self.hidden)]
        return Redactor([("url", self.common.url or ""), *((name, value) for name, _, value in given)])

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask on a terminal whether to go on, unless `yes` says so; a Misuse where the answer is not yes."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise Misuse("this cannot be undone, and there is no terminal to ask on", "--yes goes ahead without asking")
        sys.stderr.write(f"{question[:1].upper()}{question[1:]} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Misuse("nothing was changed")

    def target(self, *, provider: str | None = None, **overrides: Any) -> Target:
        """Return what to open: `overrides`, then the options, then the environment.

        With another `provider` than the options are about, these are left out.
        """
        # Imported here: `--help` should not pay for the settings library.
        from openproto.client.settings import CLIENT_OPTIONS, options_from_env

        common = self.common
        flags = {"provider": common.provider, "url": common.url, "path": common.path, "timeout": common.timeout}
        if provider is not None:
            flags = {"provider": provider}
        if not os.environ.get("OPENPROTO_APP"):
            flags["app"] = APP
        try:
            found = options_from_env({name: value for name, value in flags.items() if value is not None})
        except UnknownProviderError:
            raise
        except ValueError as error:
            raise Misuse(str(error)) from None
        name = found.pop("provider")
        if provider is None:
            found |= coerce(pairs(common.option, "--option"), provider_class(name).__init__, AsyncMemory.__init__)
            found |= overrides
        else:
            takes = provider_options(provider_class(name))
            found |= {option: value for option, value in overrides.items() if option in takes}
        client = {option: found.pop(option) for option in CLIENT_OPTIONS & found.keys()}
        return Target(name, found, client)

    @asynccontextmanager
    async def client(self, target: Target | None = None) -> AsyncIterator[AsyncMemory]:
        """Open a client for the body of a `with`; it is closed however that ends."""
        target = target or self.target()
        async with open_client(target.make_provider(), target.client_options) as memory:
            yield memory


@asynccontextmanager
async def open_client(provider: Provider, options: Mapping[str, Any]) -> AsyncIterator[AsyncMemory]:
    """Open a client on `provider`; a value that only opening can judge, such as an embedder's name, is a Misuse."""
    try:
        memory = AsyncMemory(provider, **options)
        await memory.__aenter__()
    except OpenProtoError:
        raise
    except ValueError as error:
        raise Misuse(str(error)) from error
    try:
        yield memory
    finally:
        await memory.aclose()
