"""A real Chromium, driven over its DevTools protocol: no driver in between, and nothing more to install."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias

from websockets.sync.client import connect
from websockets.sync.connection import Connection

LONG = 30.0
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-extensions --hide-scrollbars
    --remote-debugging-port=0""".split()
KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowDown": 40, "Home": 36, "End": 35}


def ask(
    socket: Connection, number: int, method: str, params: dict[str, Any], other: Callable[[Any], None] = lambda _: None
) -> dict[str, Any]:
    """Run a command of the DevTools protocol and return its result; hand every other message on."""
    socket.send(json.dumps({"id": number, "method": method, "params": params}))
    while (message := json.loads(socket.recv(timeout=LONG))).get("id") != number:
        other(message)
    assert "error" not in message, (method, message)
    return dict(message["result"])


class Page:
    """One tab, and everything that went wrong in it; what acts returns the page, for what is to be waited for."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._last = 0
        self.faults: list[str] = []
        """Errors and warnings of the console, exceptions, and what the policy refused."""
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        return ask(self._socket, self._last, method, params, self._take)

    def _take(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.faults.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.faults.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.faults.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Page.javascriptDialogOpening":
                self.faults.append(f"a dialog of the page: {params['message']}")
                closing = {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                self._socket.send(json.dumps(closing))
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])

    def run(self, script: str) -> Any:
        """Evaluate an expression, awaiting it if it is a promise, and return its value."""
        how = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        found = self.send("Runtime.evaluate", expression=script, **how)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def texts(self, selector: str) -> list[str]:
        return list(self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"))

    def wait(self, condition: str) -> None:
        deadline = time.monotonic() + LONG
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise AssertionError(f"never: {condition}\n{self.faults}\n{self.run('document.body.innerText')[:2000]}")
            time.sleep(0.03)

    def wait_for(self, selector: str, count: int | None = None) -> None:
        found = f"document.querySelectorAll({json.dumps(selector)}).length"
        self.wait(found if count is None else f"{found} === {count}")

    def pause(self, milliseconds: int) -> None:
        self.run(f"new Promise(done => setTimeout(done, {milliseconds}))")

    def open(self, url: str) -> Self:
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
        return self

    def click(self, selector: str) -> Self:
        self.wait_for(selector)
        x, y = self.run(
            f"""(() => {{ const found = document.querySelector({json.dumps(selector)});
            found.scrollIntoView({{block: "nearest"}}); const box = found.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        return self

    def type(self, text: str, into: str | None = None) -> Self:
        """Write where the focus is, or in the place of what an input holds."""
        if into is not None:
            self.wait_for(into)
            self.run(f"(e => {{ e.focus(); e.select(); }})(document.querySelector({json.dumps(into)}))")
        self.send("Input.insertText", text=text)
        return self

    def press(self, key: str, modifiers: int = 0) -> Self:
        """Press a key: one of `KEYS`, or a character."""
        text = {"Enter": "\r"}.get(key, "" if key in KEYS else key)
        more = {"text": text} if text and not modifiers & 2 else {}
        common = {"key": key, "windowsVirtualKeyCode": KEYS.get(key) or ord(key.upper()), "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)
        return self

    def look(self, *, width: int = 1280, height: int = 800, dark: bool = False, phone: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


OpenPage: TypeAlias = Callable[[], AbstractContextManager[Page]]


@contextmanager
def chromium() -> Iterator[OpenPage]:
    """Start a browser with a fresh profile; what is yielded opens a tab with cookies and storage of its own."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program is not None, "there is no chromium: apt-get install chromium"
    # Some of its processes outlive it for a moment, and write to the profile.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        browser = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            port, path = _port(Path(profile) / "DevToolsActivePort", browser)
            address = f"ws://127.0.0.1:{port}"
            with _connect(address + path) as control:

                @contextmanager
                def open_page() -> Iterator[Page]:
                    context = ask(control, 1, "Target.createBrowserContext", {})
                    target = ask(control, 2, "Target.createTarget", {"url": "about:blank", **context})["targetId"]
                    with _connect(f"{address}/devtools/page/{target}") as socket:
                        yield Page(socket)
                    ask(control, 3, "Target.disposeBrowserContext", context)

                yield open_page
        finally:
            browser.terminate()
            browser.wait(LONG)


def _connect(url: str) -> Connection:
    return connect(url, max_size=None, ping_interval=None)  # a busy browser is no dead one


def _port(path: Path, browser: subprocess.Popen[bytes]) -> list[str]:
    deadline = time.monotonic() + LONG
    while not (path.exists() and len(found := path.read_text().splitlines()) == 2):
        assert browser.poll() is None, "chromium did not start"
        assert time.monotonic() < deadline, "chromium did not start in time"
        time.sleep(0.05)
    return found
