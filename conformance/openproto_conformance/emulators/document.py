"""Checking requests and answers against a vendor's own OpenAPI document, 3.0 or 3.1.

The documents belong to the vendors and are not part of openproto. `OPENPROTO_SPECS` names the folder they are in; each
emulator says where its own comes from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from openproto_conformance.emulators.messages import Answer, Problem, Request

VARIABLE = "OPENPROTO_SPECS"
Pointer: TypeAlias = tuple[str, ...]

_URI = "urn:openapi"
_JSON = "application/json"


def find_document(file_name: str) -> Path | None:
    """Return the document's path in the folder that OPENPROTO_SPECS names; None where it is not there."""
    folder = os.environ.get(VARIABLE)
    path = Path(folder) / file_name if folder and file_name else None
    return path if path is not None and path.is_file() else None


@lru_cache(maxsize=8)
def read_document(path: Path) -> Document:
    """Return the document in a file; read once, for the checks are made when they are first needed, and kept."""
    return Document(json.loads(path.read_text(encoding="utf-8")))


class Document:
    """An OpenAPI document, by operations."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = _as_2020(content) if str(content["openapi"]).startswith("3.0") else content
        root = Resource.from_contents(self._content, default_specification=DRAFT202012)
        self._registry = Registry().with_resource(_URI, root)
        self._validators: dict[Pointer, Draft202012Validator | None] = {}

    def operation(self, method: str, path: str) -> Operation:
        """Return the operation at `path`, spelled as in the document; a LookupError where it has none."""
        at = ("paths", path, method.lower())
        if self.find(*at) is None:
            raise LookupError(f"the document has no {method} {path}")
        return Operation(self, at)

    def find(self, *pointer: str) -> Any:
        """Return what stands at a place in the document, references followed; None where nothing does."""
        return self._walk(pointer)[0]

    def validator(self, *pointer: str) -> Draft202012Validator | None:
        """Return the validator for the schema at a place in the document; None where there is none."""
        if pointer not in self._validators:
            node, at = self._walk(pointer)
            escaped = "/".join(part.replace("~", "~0").replace("/", "~1").replace("%", "%25") for part in at)
            reference = {"$ref": f"{_URI}#/{escaped}"}
            validator = None if node is None else Draft202012Validator(reference, registry=self._registry)
            self._validators[pointer] = validator
        return self._validators[pointer]

    def _walk(self, pointer: Pointer) -> tuple[Any, Pointer]:
        node: Any = self._content
        at: Pointer = ()
        for part in pointer:
            node = node[int(part)] if isinstance(node, list) else (node or {}).get(part)
            at = (*at, part)
            if isinstance(node, dict) and (reference := node.get("$ref")) is not None:
                parts = reference.removeprefix("#/").split("/")
                node, at = self._walk(tuple(part.replace("~1", "/").replace("~0", "~") for part in parts))
        return node, at


class Operation:
    """One method on one path: what it takes, and what it answers."""

    def __init__(self, document: Document, at: Pointer) -> None:
        self._document = document
        self._at = at

    def problems(self, request: Request) -> list[Problem]:
        """Return why the document forbids a request; parameters that it does not know it does not forbid."""
        return [*self._parameter_problems(request), *self._body_problems(request)]

    def _parameter_problems(self, request: Request) -> Iterator[Problem]:
        for at in (self._at[:-1], self._at):
            for index in range(len(self._document.find(*at, "parameters") or ())):
                place = (*at, "parameters", str(index))
                node, validator = self._document.find(*place), self._document.validator(*place, "schema")
                part, name = node["in"], node["name"]
                if part not in ("path", "query"):
                    continue  # headers and cookies: `authorized` looks at those that matter
                values = [request.params[name]] if part == "path" else request.query.get(name, [])
                if values and validator is not None:
                    if error := _first_error(validator, *_readings(values)):
                        yield Problem(part, (name,), error.message)
                elif not values and node.get("required"):
                    yield Problem(part, (name,), "is required")

    def _body_problems(self, request: Request) -> Iterator[Problem]:
        validator = self._document.validator(*self._at, "requestBody", "content", _JSON, "schema")
        if validator is None or (not request.body and not self._document.find(*self._at, "requestBody", "required")):
            return
        if not request.body:
            yield Problem("body", (), "a body is required")
            return
        for error in map(_deepest, validator.iter_errors(request.json)):
            yield Problem("body", tuple(error.absolute_path), error.message)

    def complaint(self, answer: Answer) -> str | None:
        """Return why the document forbids an answer, or None; it need not know the status of an error."""
        known = self._document.find(*self._at, "responses")
        names = (str(answer.status), f"{answer.status // 100}XX", "default")
        status = next((name for name in names if name in known), None)
        if status is None:
            return None if answer.status >= 400 else f"status {answer.status} is not in the document"
        validator = self._document.validator(*self._at, "responses", status, "content", _JSON, "schema")
        error = _first_error(validator, answer.body) if validator is not None else None
        return f"{'/'.join(map(str, error.absolute_path)) or 'the whole'}: {error.message}" if error else None


def _readings(values: list[str]) -> list[Any]:
    """Return what a parameter may stand for: a list, repeated or with commas, a text, and a number or boolean."""
    text = values[-1]
    try:
        plain = json.loads(text)
    except ValueError:
        plain = text
    return [values, text.split(","), text, plain if isinstance(plain, int | float) else text]


def _first_error(validator: Draft202012Validator, *readings: Any) -> ValidationError | None:
    """Return why none of the readings is valid, which the last one says best; None where one is."""
    if any(validator.is_valid(reading) for reading in readings):
        return None
    return best_match(validator.iter_errors(readings[-1]))


def _deepest(error: ValidationError) -> ValidationError:
    """Return the error inside a failed choice that is nearest to what was meant."""
    return best_match([error]) or error


def _as_2020(node: Any) -> Any:
    """Return a document of OpenAPI 3.0 with its schemas in the words of JSON Schema 2020-12."""
    if isinstance(node, list):
        return [_as_2020(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _as_2020(value) for key, value in node.items()}
    for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(made.get(flag), bool) and made.pop(flag):
            made[flag] = made.pop(bound)
    if made.pop("nullable", None) is True:
        return {"anyOf": [made, {"type": "null"}]}
    return made
