"""`ui`: a server on loopback that shows the inspector, and a browser that shows the server's page."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from openproto.cli.call import Call
from openproto.cli.command import BACKEND, CARE, command
from openproto.cli.commands.serve import server_settings, try_backend


@command(CARE, takes=BACKEND)
def ui(
    call: Call,
    port: Annotated[int, typer.Option(metavar="N", help="On 127.0.0.1; a free one by default.")] = 0,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask for one of these API keys; see `openproto keys`.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address and open nothing.")] = False,
) -> None:
    """Look at memories and change them, on a page in the browser; Ctrl-C ends it.

    The page is at the printed address, for programs of this machine alone. `openproto serve --ui` shows it to others.
    """
    flags: dict[str, Any] = {"host": "127.0.0.1", "port": port, "workers": 1, "ui": True, "log_level": "warning"}
    if keys is not None:
        flags["keys_file"] = keys
    settings = server_settings(flags)
    # The page names itself in the audit log.
    target = call.target(app=os.environ.get("OPENPROTO_APP") or None)
    asyncio.run(try_backend(target))
    from openproto.server.run import serve

    def show(url: str) -> None:
        page = f"{url}/ui"
        opens = not no_browser and _has_browser()
        if call.out.as_json:
            call.out.json({"url": page})
        else:
            call.out.line(page)
            call.out.note("opened in the browser; Ctrl-C ends it" if opens else "open it in a browser; Ctrl-C ends it")
        sys.stdout.flush()
        if opens:
            # In a thread, because some browsers are waited for; one that cannot start says so itself.
            threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()

    serve(target.name, target.provider_options | target.client_options, settings, on_ready=show)


def _has_browser() -> bool:
    """Whether a browser with windows can open here; one that runs in the terminal would hide what is printed."""
    if sys.platform not in ("darwin", "win32") and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    ):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
