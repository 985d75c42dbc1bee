"""The checks that cases are made of: each failure says in words what was wanted and what came.

Plain `assert` is not used: its text depends on pytest's rewriting, and `python -O` removes it.
"""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from openproto.errors import OpenProtoError

E = TypeVar("E", bound=BaseException)

_ABSENT = object()

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 160
_short.maxlist = _short.maxset = _short.maxdict = 8


class Violation(AssertionError):
    """A sentence of the protocol that did not hold."""


def ensure(condition: object, message: str) -> None:
    """Fail with `message` unless `condition` holds."""
    __tracebackhide__ = True
    if not condition:
        raise Violation(message)


def equal(got: object, wanted: object, what: str) -> None:
    """Fail unless `got == wanted`, showing both, and of records and mappings only what differs."""
    __tracebackhide__ = True
    if got != wanted:
        where, got, wanted = _narrowed(got, wanted)
        raise Violation(f"{what}{where}: wanted {shown(wanted)}, got {shown(got)}")


def _narrowed(got: object, wanted: object, where: str = "") -> tuple[str, object, object]:
    """Return the first place at which two values differ, and what each has there."""
    if isinstance(got, BaseModel) and isinstance(wanted, type(got)):
        return _narrowed(dict(got), dict(wanted), where)
    if isinstance(got, dict) and isinstance(wanted, dict):
        names = [name for name in {**wanted, **got} if got.get(name, _ABSENT) != wanted.get(name, _ABSENT)]
        if len(names) == 1 and names[0] in got and names[0] in wanted:
            return _narrowed(got[names[0]], wanted[names[0]], f"{where}.{names[0]}")
        few_got, few_wanted = ({name: value[name] for name in names if name in value} for value in (got, wanted))
        return where, few_got, few_wanted
    if isinstance(got, list) and isinstance(wanted, list) and len(got) == len(wanted):
        at = [n for n, (mine, theirs) in enumerate(zip(got, wanted, strict=True)) if mine != theirs]
        if len(at) == 1 and isinstance(got[at[0]], BaseModel | dict):
            return _narrowed(got[at[0]], wanted[at[0]], f"{where}[{at[0]}]")
    return where, got, wanted


def shown(value: object) -> str:
    """Return a repr short enough for a report."""
    return _short.repr(value)


async def raises(kind: type[E], call: Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any) -> E:
    """Return the `kind` that awaiting `call(...)` raises; fail when it raises anything else, or nothing."""
    __tracebackhide__ = True
    name = getattr(call, "__name__", "the call")
    try:
        result = await call(*args, **kwargs)
    except asyncio.CancelledError:
        raise
    except kind as error:
        if isinstance(error, OpenProtoError):
            equal(error.code, type(error).code, f"the code of the error that {name} raised")
        return error
    except Exception as error:
        raise Violation(f"{name} must raise {kind.__name__}, and raised {type(error).__name__}: {error}") from error
    raise Violation(f"{name} must raise {kind.__name__}, and returned a {type(result).__name__}")
