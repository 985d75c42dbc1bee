"""What a command says when it fails: one or two lines on stderr, or the protocol's envelope with `--json`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import traceback
from dataclasses import dataclass

from openproto import InternalError, InvalidRequestError, OpenProtoError, UnknownProviderError
from openproto.cli.clean import clean
from openproto.cli.exits import Exit, exit_of, hint_of
from openproto.cli.redact import Redactor
from openproto.portable.terminal import clean_json


class Misuse(Exception):
    """The command was given something it cannot work with; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure in words: the exit status, the envelope, and what to do next."""

    status: Exit
    envelope: dict[str, dict[str, str]]
    hint: str

    @property
    def message(self) -> str:
        """What happened."""
        return self.envelope["error"]["message"]


def explain_fault(error: BaseException, resume: str = "") -> Fault:
    """Return what to say of `error`; `resume` says how to go on after an interruption."""
    if isinstance(error, OpenProtoError):
        return Fault(exit_of(error.code), error.to_envelope(), hint_of(error.code))
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return Fault(Exit.INTERRUPTED, _envelope("interrupted", "interrupted" + (f"; {resume}" if resume else "")), "")
    if isinstance(error, Misuse):
        return Fault(Exit.USAGE, InvalidRequestError(str(error)).to_envelope(), error.hint)
    if isinstance(error, UnknownProviderError):
        hint = "`openproto providers` lists those that are installed"
        return Fault(Exit.USAGE, InvalidRequestError(str(error)).to_envelope(), hint)
    if isinstance(error, ImportError) and "pip install" in str(error):
        return Fault(Exit.MISSING, _envelope("missing_package", str(error)), "")
    if isinstance(error, OSError) and error.strerror:
        # Ours alone: a provider maps its own. With a file's name it was the caller who named it.
        status = Exit.USAGE if error.filename else Exit.FAILED
        where = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return Fault(status, InvalidRequestError(where).to_envelope(), "")
    # Anything else is a bug of ours or of a provider: its text may hold anything, memory content among it.
    where = f"an unexpected fault inside openproto or the provider ({type(error).__name__})"
    return Fault(Exit.FAILED, InternalError(where).to_envelope(), "run it again with --debug and report what it prints")


def report(error: BaseException, redact: Redactor, *, as_json: bool, debug: bool = False, resume: str = "") -> Exit:
    """Print what happened on stderr and return the exit status; a reader who left the pipe gets silence."""
    if isinstance(error, BrokenPipeError):
        _discard_output()
        return Exit.OK
    fault = explain_fault(error, resume)
    if debug:
        show_traceback(error, redact)
    if as_json:
        text = clean_json(redact(json.dumps(fault.envelope, ensure_ascii=False)))
    elif fault.status is Exit.INTERRUPTED:
        text = fault.message
    else:
        text = clean(redact("error: " + fault.message + (f"\nhint:  {fault.hint}" if fault.hint else "")))
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - stderr is where a command speaks
    return fault.status


def report_refusal(error: Exception, redact: Redactor, *, as_json: bool) -> Exit:
    """Print why something that was read cannot be worked with, and return the exit status of a failed check."""
    envelope = InvalidRequestError(str(error)).to_envelope()
    text = clean_json(json.dumps(envelope, ensure_ascii=False)) if as_json else clean(f"error: {error}")
    sys.stderr.write(redact(text) + "\n")
    return Exit.FAILED


def show_traceback(error: BaseException, redact: Redactor) -> None:
    """Print the traceback on stderr, without secrets; the one place where memory content may show."""
    sys.stderr.write(clean(redact("".join(traceback.format_exception(error)))))


def _envelope(code: str, message: str) -> dict[str, dict[str, str]]:
    return {"error": {"code": code, "message": message, "type": "provider_error"}}


def _discard_output() -> None:
    """Point stdout at nothing, or the interpreter would complain when it flushes at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
