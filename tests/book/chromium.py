"""A Chromium that stays open and is told what to do over its DevTools protocol: real key presses,
clicks, sizes of the window, screenshots. `browser.py` has what one page at a time needs.

The protocol runs over a pipe, the browser's file descriptors 3 and 4: no port, no other package.
"""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.book.browser import CHROMIUM, FLAGS

KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowDown": 40,
    "ArrowUp": 38, "Backspace": 8,
}  # fmt: skip


_AS_3_AND_4 = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """The browser's process and the pipe to it."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM, "there is no Chromium"
        orders, answers = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (orders[0], answers[1])]
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", _AS_3_AND_4, *map(str, theirs), *command],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in (orders[0], answers[1], *theirs):
            os.close(one)
        self._out, self._in, self._rest = orders[1], answers[0], b""
        self._ids = itertools.count(1)
        self._events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the protocol."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while True:
            told = self._read(end)
            if told.get("id") == number:
                assert "error" not in told, (method, told["error"])
                return told["result"]
            self._events.append(told)

    def _read(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        told, _, self._rest = self._rest.partition(b"\0")
        return json.loads(told)

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        self.process.wait(30)
        os.close(self._out)
        os.close(self._in)

    def page(self, width: int = 1280, height: int = 900, dark: bool = False) -> "Page":
        """A new page in a profile of its own, in a window of that size."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        made = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        page = Page(self, session["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        page.call("Emulation.setEmulatedMedia", features=scheme)
        return page


class Page:
    """One page of the browser."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """What an expression of JavaScript gives, awaited if it is a promise."""
        told = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """Wait until an expression gives something true; what it gives."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(AssertionError):  # between two documents
                if found := self.run(script):
                    return found
            assert time.monotonic() < end, f"waited in vain for {script}"
            time.sleep(0.05)

    def press(self, key: str, times: int = 1, shift: bool = False) -> None:
        """Press a key of `KEYS` as a person does."""
        text = {"Enter": "\r", " ": " "}.get(key)
        code = {" ": "Space"}.get(key, key)
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind, key=key, code=code, windowsVirtualKeyCode=KEYS[key],
                    modifiers=8 * shift,
                    **({"text": text} if text and kind == "keyDown" else {}),
                )  # fmt: skip

    def write(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def said(self) -> list[str]:
        """What the console, and the browser itself, have said of this page: errors and warnings."""
        self.run("1")  # what came before has then arrived
        out = []
        for event in self.browser._events:
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                out.append(json.dumps(event["params"]["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded":
                out.append(event["params"]["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled":
                out.append(json.dumps(event["params"]["args"]))
        return out

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot as PNG, of the whole page or of what the window shows."""
        told = self.call("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        path.write_bytes(base64.b64decode(told["data"]))


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """A browser, closed at the end."""
    browser = Chromium(profile)
    try:
        yield browser
    finally:
        browser.close()
