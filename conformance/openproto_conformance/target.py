"""Which providers a run of the command makes: from the options, on an emulator, and with an audit journal."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from openproto.cli.call import Call, Target
from openproto.cli.coerce import pairs
from openproto.cli.reporting import Misuse
from openproto.provider import Provider
from openproto.registry import make_provider, provider_class, provider_options
from openproto_conformance.how import How

if TYPE_CHECKING:
    from openproto_conformance.emulators.emulator import Emulator


_ELSEWHERE = {"api_key", "base_url", "url"}
"""Options of backends to which a path is not all that there is."""


class Made(NamedTuple):
    """The provider's name, what makes one, the secrets among its options, and whether its constructor fails."""

    name: str
    make: Callable[[], Provider]
    secrets: tuple[str, ...]
    broken: bool
    at_a_path: Mapping[str, Any] | None = None
    """Its options, where the one named `path` says alone where the memories are, so that another leads to others."""


def made_by(call: Call, how: How, stack: ExitStack, emulator: Emulator | None) -> Made:
    """Return what to try; a Misuse where no provider can be made of these options.

    What a constructor raises without having been given an option is the provider's own fault, and found by the suite.
    """
    name = call.common.provider
    if not name:
        raise Misuse("which backend? `openproto conformance NAME key=value ...`", "`openproto providers` lists them")
    if call.common.timeout is not None:
        raise Misuse("--timeout is not for conformance: the suite sets the deadlines")
    given = pairs(call.common.option, "KEY=VALUE")
    overrides = {} if emulator is None else emulator.provider_options()
    target = call.target(**overrides)
    if clients := sorted(given.keys() & target.client_options.keys()):
        raise Misuse(f"{clients[0]} is an option of the client, which the suite makes itself")
    accepts = provider_options(provider_class(name))
    takes_path = "path" in accepts and (emulator is None or emulator.beside_a_file)
    if takes_path and "path" not in given and call.common.path is None:
        target = _on_a_temporary_path(target, stack)
    broken = False
    try:
        target.make_provider()
    except Misuse as error:
        if given or not isinstance(error.__cause__, ValueError) or not _binds(name, target):
            raise
        broken = True
    except Exception:  # whatever the constructor raises, the run reports it
        broken = True
    if broken:
        return Made(name, lambda: make_provider(name, target.provider_options), call.redact.secrets, broken)
    alone = emulator is None and how.audit is None and not _ELSEWHERE & accepts.keys()
    at_a_path = target.provider_options if alone and "path" in target.provider_options else None
    return Made(name, _audited(target, how.audit, stack, emulator), call.redact.secrets, broken, at_a_path)


def stores_beside(options: Mapping[str, Any], number: int, stack: ExitStack) -> list[dict[str, Any]]:
    """Return so many times the options with a path of its own, next to the one that they name, until `stack` ends."""
    here = Path(options["path"]).parent
    prefix, where = "openproto-conformance-", here if os.access(here, os.W_OK) else None
    folders = [TemporaryDirectory(prefix=prefix, dir=where, ignore_cleanup_errors=True) for _ in range(number)]
    return [{**options, "path": str(Path(stack.enter_context(folder)) / "memory.db")} for folder in folders]


def _on_a_temporary_path(target: Target, stack: ExitStack) -> Target:
    """Return the target with a path of its own, unless its options say already where the memories are."""
    folder = stack.enter_context(TemporaryDirectory(prefix="openproto-conformance-", ignore_cleanup_errors=True))
    options = {**target.provider_options, "path": str(Path(folder) / "memory.db")}
    there = Target(target.name, options, target.client_options)
    try:
        there.make_provider()
    except Misuse:
        return target
    except Exception:  # it takes the path, and what it raises is reported where it is made in earnest
        return there
    return there


def _binds(name: str, target: Target) -> bool:
    """Return whether the constructor takes exactly these options, so that a complaint is not about their names."""
    try:
        inspect.signature(provider_class(name)).bind(**target.provider_options)
    except TypeError:
        return False
    return True


def _audited(target: Target, url: str | None, stack: ExitStack, emulator: Emulator | None) -> Callable[[], Provider]:
    """Return what makes the target's providers, with an audit journal where one is wanted."""
    keeps_a_log = "audit" in target.make_provider().verbs
    if url is None and (emulator is None or keeps_a_log):
        return target.make_provider
    from openproto.layers.audit import Audited

    if url is None:
        folder = stack.enter_context(TemporaryDirectory(prefix="openproto-journal-", ignore_cleanup_errors=True))
        url = f"sqlite:///{folder}/audit.db"
    journal = url
    try:
        Audited(target.make_provider(), journal)
    except (TypeError, ValueError) as error:
        raise Misuse(f"--audit: {error}") from None
    return lambda: Audited(target.make_provider(), journal)
