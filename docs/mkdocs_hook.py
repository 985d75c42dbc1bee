"""What the site has beyond the files of this folder: the README and its like, the API reference, `llms.txt`.

A hook of mkdocs, which `make docs` runs. Links to files of the repository that are no page become plain text, if the
files are there.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "releasing.md": "RELEASING.md",
    "changelog.md": "CHANGELOG.md",
}
LINK = re.compile(r"\[([^]]*)]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference.md", content=_reference()))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Point links at the pages of the site."""
    here = PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {source: page for page, source in PAGES.items()}

    def point(found: re.Match[str]) -> str:
        text, link, anchor = found[1], found[2], found[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
        wanted = pages.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(wanted):
            return f"[{text}]({wanted}{anchor})"
        if not (ROOT / target).exists():
            raise PluginError(f"{here} links to {link}, which is not there")
        return text

    return LINK.sub(point, markdown)


def on_post_build(config: Any) -> None:
    """Write `llms.txt`, which names the pages with their first sentence, and `llms-full.txt`, which holds them."""
    listed = [f"# {config.site_name}\n\n> {config.site_description}\n"]
    whole: list[str] = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        whole.append(text)
        title, _, rest = text.removeprefix("# ").partition("\n")
        first = " ".join(rest.strip().partition("\n\n")[0].split()).partition(". ")[0].rstrip(".:")
        page = "" if path.name == "README.md" else f"{path.stem}/"
        listed.append(f"- [{title}]({config.site_url or '/'}{page}): {first}")
    site = Path(config.site_dir)
    (site / "llms.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
    (site / "llms-full.txt").write_text("\n".join(whole), encoding="utf-8")


def _reference() -> str:
    """Return the page of every public name."""
    tree = ast.parse((ROOT / "openproto/__init__.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node)
    )
    homes = {alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    errors = [name for name in names if name.endswith("Error")]
    first = ["AsyncMemory", "Memory"]
    others = [name for name in names if name in homes and name not in errors + first]
    sections = {"Clients": first, "Values, requests, and providers": others, "Errors": errors}
    page = ["# Reference", "", "Every public name of `openproto`, from its docstring.", ""]
    for heading, members in sections.items():
        page += [f"## {heading}", ""]
        page += [f"::: {homes[name]}.{name}\n    options:\n      heading_level: 3\n" for name in members]
    return "\n".join(page)
