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
from typing import Any, TypeAlias

from websockets.sync.client import connect
from websockets.sync.connection import Connection

LONG = 30.0
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-extensions --hide-scrollbars
    --remote-debugging-port=0""".split()
KEYS = {
    "Enter": (13, "\r"),
    "Tab": (9, ""),
    "Escape": (27, ""),
    "ArrowDown": (40, ""),
    "ArrowRight": (39, ""),
    "Home": (36, ""),
    "End": (35, ""),
}


class Page:
    """One tab, and everything that went wrong in it."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._last = 0
        self.faults: list[str] = []
        """Errors and warnings of the console, exceptions, and what the policy refused."""
        self.requests: list[str] = []
        self.bytes: dict[str, int] = {}
        self._urls: dict[str, str] = {}
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Run a command of the DevTools protocol."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=LONG))
            if message.get("id") == self._last:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                found: dict[str, Any] = message["result"]
                return found
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.faults.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.faults.append(" ".join(str(each.get("value", each)) for each in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.faults.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Page.javascriptDialogOpening":
                self.faults.append(f"a dialog of the page: {params['message']}")
                self._socket.send(
                    json.dumps({"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}})
                )
            case "Network.requestWillBeSent":
                self._urls[params["requestId"]] = params["request"]["url"]
                self.requests.append(params["request"]["url"])
            case "Network.loadingFinished":
                url = self._urls.get(params["requestId"], "")
                self.bytes[url] = self.bytes.get(url, 0) + int(params["encodedDataLength"])

    def run(self, script: str) -> Any:
        """Evaluate an expression, awaiting it if it is a promise, and return its value."""
        found = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"].get("exception", {}).get("description", found))
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + LONG
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"never true: {condition}\nfaults: {self.faults}\n{self.run('document.body.innerText')[:2000]}"
                )
            time.sleep(0.03)

    def open(self, url: str) -> None:
        """Load a page and wait until it has finished."""
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def click(self, selector: str) -> None:
        """Click the middle of an element, once it is there."""
        self.wait(f"document.querySelector({json.dumps(selector)})")
        script = f"""(() => {{ const found = document.querySelector({json.dumps(selector)});
            found.scrollIntoView({{block: "nearest"}}); const box = found.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
        x, y = self.run(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Write where the focus is."""
        self.send("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key: one of `KEYS`, or a character."""
        code, text = KEYS.get(key, (ord(key.upper()[0]), key))
        more = {"text": text} if text and not modifiers & 2 else {}
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def look(self, *, width: int = 1280, height: int = 800, dark: bool = False, phone: bool = False) -> None:
        """Set the window and the colours."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Keep what is seen as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


OpenPage: TypeAlias = Callable[[], AbstractContextManager[Page]]


@contextmanager
def chromium() -> Iterator[OpenPage]:
    """Start a browser with a fresh profile; what is yielded opens a tab with cookies and storage of its own."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise AssertionError("there is no chromium: apt-get install chromium")
    # Some of its processes outlive it for a moment, and write to the profile.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
        )
        try:
            port, path = _port(Path(profile) / "DevToolsActivePort", browser)
            address = f"ws://127.0.0.1:{port}"
            with _connect(address + path) as control:

                @contextmanager
                def open_page() -> Iterator[Page]:
                    context = _ask(control, "Target.createBrowserContext")
                    target = _ask(control, "Target.createTarget", url="about:blank", **context)["targetId"]
                    with _connect(f"{address}/devtools/page/{target}") as socket:
                        yield Page(socket)
                    _ask(control, "Target.disposeBrowserContext", **context)

                yield open_page
        finally:
            browser.terminate()
            browser.wait(LONG)


def _connect(url: str) -> Connection:
    return connect(url, max_size=None, ping_interval=None)  # a busy browser is no dead one


def _port(path: Path, browser: subprocess.Popen[bytes]) -> list[str]:
    deadline = time.monotonic() + LONG
    while not (path.exists() and len(found := path.read_text().splitlines()) == 2):
        if browser.poll() is not None or time.monotonic() > deadline:
            raise AssertionError("chromium did not start")
        time.sleep(0.05)
    return found


def _ask(socket: Connection, method: str, **params: Any) -> dict[str, Any]:
    socket.send(json.dumps({"id": 1, "method": method, "params": params}))
    while True:
        message = json.loads(socket.recv(timeout=LONG))
        if message.get("id") == 1:
            found: dict[str, Any] = message["result"]
            return found
