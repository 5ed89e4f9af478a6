"""Headless Chromium for tests, driven through its debugging pipe without a driver or a library."""

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
SETTLE_TIMEOUT = 20.0
"""Seconds to wait for a page to finish loading."""

# The browser reads commands from file descriptor 3 and writes responses to 4.
_LAUNCH = """
import fcntl, os, sys
reading, writing = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find() -> str:
    """Return the path of the browser. Without a browser, skip the test, or fail it if CI=true."""
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        message = f"no browser found (looked for {', '.join(NAMES)}): the pages were not tested"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return browser


class Navigated(Exception):
    """The page navigated away before it responded."""


class Chromium:
    """One page of a browser."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.console: list[str] = []
        """Errors of scripts and of the content security policy."""
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
            response = self._next_message()
            if response.get("id") == self._number:
                if "error" in response:
                    raise Navigated(f"{method}: {response['error']}")
                result: dict[str, Any] = response["result"]
                return result

    def _next_message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._reading, 1 << 16)
            assert chunk, "the browser exited"
            self._buffer += chunk
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if message.get("method") == "Log.entryAdded":
            self.console.append(message["params"]["entry"]["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(message["params"]["exceptionDetails"]))
        return message

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page and return its value."""
        response = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in response, response["exceptionDetails"]
        return response["result"].get("value")

    def open(self, url: str) -> None:
        """Open a page and wait until it has loaded."""
        self._call("Page.navigate", url=url)
        self._settle()

    def click(self, selector: str) -> None:
        """Click the element and wait until the next page has loaded."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self._settle()

    def fill(self, selector: str, text: str) -> None:
        """Set the value of a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(text)}")

    def press(self, key: str) -> None:
        """Press a key: `Tab` or `Enter`."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"Enter": "\r"}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text=text if kind == "keyDown" else "",
            )

    def back(self) -> None:
        """Go back in the history and wait until the page has loaded."""
        self.run("setTimeout(() => history.back(), 0)")
        self._settle()

    def clear_cookies(self) -> None:
        """Delete all cookies. A browser stores them per host, and ignores the port."""
        self._call("Network.clearBrowserCookies")

    def _settle(self) -> None:
        """Wait until the page has loaded and its address no longer changes."""
        deadline, unchanged, previous = time.monotonic() + SETTLE_TIMEOUT, 0, None
        while unchanged < 4:
            assert time.monotonic() < deadline, "the page did not finish loading"
            time.sleep(0.05)
            try:
                state = self.run("[location.href, document.readyState, performance.timeOrigin].join(' ')")
            except Navigated:
                state = ""
            unchanged = unchanged + 1 if state == previous and "complete" in state else 0
            previous = state

    @property
    def url(self) -> str:
        """The address of the page."""
        return str(self.run("location.href"))

    @property
    def text(self) -> str:
        """The visible text of the page."""
        return str(self.run("document.body.innerText"))

    def emulate(
        self, width: int = 1200, height: int = 900, *, dark: bool = False, scripts: bool = True
    ) -> None:
        """Emulate a screen size, a color scheme, and a browser with or without scripts."""
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

    def screenshot(self, path: Path, *, full_page: bool = True) -> None:
        """Save the full page, or the part that fits on the screen, as a PNG file."""
        response = self._call("Page.captureScreenshot", captureBeyondViewport=full_page)
        path.write_bytes(base64.b64decode(response["data"]))

    def quit(self) -> None:
        """Close the browser."""
        self._session = None
        self._call("Browser.close")


@contextmanager
def chromium(profile: Path, flags: Sequence[str] = ()) -> Iterator[Chromium]:
    """Run a browser with an empty profile and quit it at the end."""
    our_read, browser_write = os.pipe()
    browser_read, our_write = os.pipe()
    command = [find(), *FLAGS, *flags, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, str(browser_read), str(browser_write), *command],
        pass_fds=(browser_read, browser_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(browser_read)
    os.close(browser_write)
    try:
        browser = Chromium(our_read, our_write)
        yield browser
        browser.quit()
    finally:
        os.close(our_write)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(our_read)
