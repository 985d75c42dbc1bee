"""Every message that the library raises, read from its source: what happened, what that means, and what to do next."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
HOMES = [ROOT / "openproto", ROOT / "adapters/openproto_adapters"]
SOURCES = [path for home in HOMES for path in sorted(home.rglob("*.py"))]

INPUT = set(
    "ImportError InvalidRequestError PayloadTooLargeError TypeError UnsupportedMediaTypeError ValueError".split()
)
NOT_OURS = {"AttributeError", "ClientConnectionError", "OSError", "TimeoutError", "ToolError"}
"""What Python and SDKs expect word by word, and what a model reads in the words of Anthropic's own memory tool."""
SETTLED = {
    "no such memory",  # says no more, for nobody may learn whether another user has it
    "supersedes: no such memory",
    "{vendor} has no such memory",
    "{self._owner} is bound to a different event loop",  # the protocol's own words
    "{self._owner} is closed",
    "{self._owner} is closed, because its event loop or the process ends",
}
PASSED_ON = {
    "{error.code}: {error.message}",
    "{error.filename}: {error.strerror}",
    "{key}: {error}",
    "{path}: {error.strerror}",
    "an unexpected fault inside openproto or the provider ({type(error).__name__})",  # `--debug` stands in its hint
}
"""Another message of ours, or the operating system's of a file that the caller named."""

LONGEST = 420
IMPERATIVES = """
    add ask await call choose close connect correct create delete drop find free give grant install leave let look lower
    make name open pass pip put raise read remember remove repeat report run save say send set start store tell try turn
    uninstall update upgrade use wait write
"""
NEXT = re.compile(rf"({'|'.join(IMPERATIVES.split())})\b", re.IGNORECASE)
OPTION = re.compile(r"\b[a-z_]+=|`[^`]+`|\bOPENPROTO_|\?$")
RULE = re.compile(
    r"\b(must|may|needs?|wants?|takes?|knows? no|is no|is not|are not|cannot|too|exclude|expected|larger|longer|"
    r"outside|belongs?|given|got|serves?|there are|names)\b"
)
"""How a message about an input says what is right, or what of it is wrong."""
EMPTY = re.compile(r"no reason|gave no|unknown error|something went wrong|^(error|failed|invalid)\b", re.IGNORECASE)
PRIVATE = set("_api_key api_key body content dsn item password query raw row secret token".split())
SAY_LITTLE = {"_kind", "_quoted", "address", "len", "type"}
"""Functions that say something about a value without repeating it, or what of it may be repeated."""


class Message(NamedTuple):
    """A text as it stands in the source, with `{...}` where values go, the error's class, and what those values are."""

    where: str
    error: str
    text: str
    values: tuple[ast.expr, ...]


def texts(node: ast.expr, names: dict[str, list[ast.expr]]) -> Iterator[tuple[str, tuple[ast.expr, ...]]]:
    """Yield every text that an expression can be."""
    match node:
        case ast.Constant(value=str() as text):
            yield text, ()
        case ast.JoinedStr(values=parts):
            shown = [
                f"{{{ast.unparse(p.value)}}}" if isinstance(p, ast.FormattedValue) else ast.literal_eval(p)
                for p in parts
            ]
            yield "".join(shown), tuple(part.value for part in parts if isinstance(part, ast.FormattedValue))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            for before, some in texts(left, names):
                for after, others in texts(right, names):
                    yield before + after, some + others
        case ast.IfExp(body=body, orelse=other):
            yield from texts(body, names)
            yield from texts(other, names)
        case ast.Name(id=name) if name in names:
            for value in names[name]:
                yield from texts(value, {})
        case ast.Call(func=ast.Attribute(value=value, attr="format" | "replace")):
            yield from texts(value, names)


def called(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def messages(path: Path) -> Iterator[Message]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    names.setdefault(target.id, []).append(node.value)
    for node in ast.walk(tree):
        error, told = "", None
        if isinstance(node, ast.Call) and node.args:
            error, told = called(node.func), node.args[0]
        elif isinstance(node, ast.Tuple) and len(node.elts) > 1 and isinstance(node.elts[-1], ast.Constant):  # a table
            error, told = called(node.elts[-2]), node.elts[-1]
        if told is not None and error.endswith("Error") and error[0].isupper():
            for text, values in texts(told, names):
                yield Message(f"{path.relative_to(ROOT)}:{told.lineno}", error, text, values)


FOUND = [message for path in SOURCES for message in messages(path) if message.error not in NOT_OURS]


def faults(message: Message) -> Iterator[str]:
    """Say what is wrong with a message, by the rules that hold for all of them."""
    error, text = message.error, message.text
    if not re.search(r"[a-z]{2}.* ", text) or len(text) > LONGEST or text != text.strip():
        yield "is no sentence, or is too long"
    if EMPTY.search(text) or (text.endswith((".", ",", ":", ";")) and ". " not in text):
        yield "says nothing, or ends as no message of this library does"
    for value in message.values:
        private = PRIVATE & {called(node) for node in ast.walk(value) if isinstance(node, ast.expr)}
        if private and not (isinstance(value, ast.Call) and called(value.func) in SAY_LITTLE):
            yield f"may repeat what is private: {private}"
    settled = text in SETTLED | PASSED_ON or (error in INPUT and RULE.search(text)) or OPTION.search(text)
    if not settled and not any(NEXT.match(part.strip()) for part in re.split(r"[:;?.,(]|\band\b|\bor\b", text)):
        yield "does not say what to do next"


def test_every_message_says_what_happened_and_what_to_do_next() -> None:
    assert (len(FOUND) > 350, len({message.where.split(":")[0] for message in FOUND}) > 80) == (True, True)
    assert not [f"{m.where} {m.error} {fault}: {m.text}" for m in FOUND for fault in faults(m)]
