"""`openproto new-provider`: the package of a backend of your own, which runs and conforms before its first change."""

from __future__ import annotations

import enum
import keyword
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from openproto.cli.call import Call
from openproto.cli.command import CARE, command
from openproto.cli.reporting import Misuse
from openproto.registry import provider_names

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


class Base(enum.StrEnum):
    """What the new provider is built on."""

    emulated = "emulated"
    provider = "provider"


@command(CARE, name="new-provider")
def new_provider(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the provider is to be called, such as acme.")],
    base: Annotated[
        Base,
        typer.Option(
            metavar="KIND",
            help="`emulated` for a backend that keeps texts with metadata and knows nothing of the protocol; "
            "`provider` for one that has users, times, and filters of its own.",
        ),
    ] = Base.emulated,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="Where to write it: ./NAME-memory by default.")
    ] = None,
) -> None:
    """Write a package for a backend of your own: a provider, its entry point, its conformance test, and a README.

    It runs as it is, on a table of SQLite that stands for your backend: put your own calls in its place, one by one.

    The exit status is 2 for a name that is taken or cannot be one, and for a folder that is there already.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise Misuse(f"{name!r} cannot be a provider's name", "lower-case letters, digits, and hyphens, such as 'acme'")
    if name in provider_names():
        raise Misuse(f"provider {name!r} is installed already", "choose another name")
    package = f"{name.replace('-', '_')}_memory"
    target = folder or Path(f"{name}-memory")
    if target.exists():
        raise Misuse(f"{target} is there already", "name another folder with --folder, or remove this one")
    words = {
        "name": name,
        "package": package,
        "distribution": package.replace("_", "-"),
        "cls": "".join(part.capitalize() for part in re.split("[-_]", name)),
    }
    written = [_write(part, target / where, words) for part, where in _templates(base, package)]
    if call.out.as_json:
        call.out.json({"folder": str(target), "files": [str(path) for path in written]})
        return
    for path in written:
        call.out.line(str(path))
    call.out.note(f"now: pip install -e {target} && openproto conformance {name} --quick")


def _templates(base: Base, package: str) -> list[tuple[Traversable, Path]]:
    """Return the templates of a base, and those of both, with where each goes."""
    folder = files("openproto_conformance").joinpath("templates")
    return [
        (folder.joinpath(base, "provider.py.txt"), Path(f"{package}.py")),
        (folder.joinpath("pyproject.toml.txt"), Path("pyproject.toml")),
        (folder.joinpath(base, "README.md.txt"), Path("README.md")),
        (folder.joinpath("test.py.txt"), Path("tests") / f"test_{package}.py"),
    ]


def _write(template: Traversable, path: Path, words: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Template(template.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    return path
