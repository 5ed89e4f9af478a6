"""A real Chromium without a window, driven through its own pipe: no driver and no library in between."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    "--no-default-browser-check", "--disable-background-networking", "--disable-sync", "--disable-component-update",
    "--disable-default-apps", "--disable-extensions", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 20.0

# The browser reads commands from descriptor 3 and writes answers to 4.
_LAUNCH = """
import fcntl, os, sys
reading, writing = (fcntl.fcntl(int(found), fcntl.F_DUPFD, 10) for found in sys.argv[1:3])
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find() -> str:
    """The browser's path; without one the test is skipped, except where CI=true promises that there is one."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        words = f"no browser here (looked for {', '.join(NAMES)}): what people see was not tested"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)
    return found


class Navigated(Exception):
    """The page was left before it could answer."""


class Chromium:
    """One page of a browser."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.console: list[str] = []
        """What the page complained about: errors of scripts and of the content security policy."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise Navigated(f"{method}: {answer['error']}")
                found: dict[str, Any] = answer["result"]
                return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._reading, 1 << 16)
            assert chunk, "the browser is gone"
            self._buffer += chunk
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if message.get("method") == "Log.entryAdded":
            self.console.append(message["params"]["entry"]["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(message["params"]["exceptionDetails"]))
        return message

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, url: str) -> None:
        """Go to a page and wait until it is there."""
        self._call("Page.navigate", url=url)
        self._settle()

    def click(self, selector: str) -> None:
        """Click what the selector finds, and wait until the page that it leads to is there."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self._settle()

    def fill(self, selector: str, text: str) -> None:
        """Write into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(text)}")

    def back(self) -> None:
        """Press the browser's back button."""
        self.run("setTimeout(() => history.back(), 0)")
        self._settle()

    def forget(self) -> None:
        """Drop every cookie: a browser keeps them by host, whatever the port."""
        self._call("Network.clearBrowserCookies")

    def _settle(self) -> None:
        """Wait until the page has been quiet for a moment."""
        end, quiet, before = time.monotonic() + PATIENCE, 0, None
        while quiet < 4:
            assert time.monotonic() < end, "the page never came to rest"
            time.sleep(0.05)
            try:
                state = self.run("[location.href, document.readyState, performance.timeOrigin].join(' ')")
            except Navigated:
                state = ""
            quiet = quiet + 1 if state == before and "complete" in state else 0
            before = state

    @property
    def url(self) -> str:
        """Where the page is."""
        return str(self.run("location.href"))

    @property
    def text(self) -> str:
        """What a person reads on it."""
        return str(self.run("document.body.innerText"))

    def look(self, width: int = 1200, height: int = 900, *, dark: bool = False, scripts: bool = True) -> None:
        """See the page as on a screen of this size, in the light or in the dark."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """The whole page as a PNG, or what fits on the screen."""
        found = self._call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def quit(self) -> None:
        """Close the browser."""
        self._session = None
        self._call("Browser.close")


@contextmanager
def chromium(profile: Path, flags: Sequence[str] = ()) -> Iterator[Chromium]:
    """A fresh browser with an empty profile, gone at the end."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    command = [find(), *FLAGS, *flags, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), *command],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        browser = Chromium(ours_in, ours_out)
        yield browser
        browser.quit()
    finally:
        os.close(ours_out)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_in)
