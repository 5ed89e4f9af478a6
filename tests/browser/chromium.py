"""Headless Chromium for tests, driven through its debugging pipe without a driver or a library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
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
    "--js-flags=--single-threaded",  # no threads that compile what runs once
    # The page is in the background, so that it is not painted, but its timers run at the usual speed.
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
)  # fmt: skip
TIMEOUT = 60.0
"""Seconds to wait for the next message of the browser, for example that a page has loaded."""

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


class Chromium:
    """One page of a browser."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._target = ""
        """The ID of the page, and of its main frame."""
        self._navigation_requested = False
        self._loading = False
        self._emulated: dict[str, dict[str, Any]] = {}
        self.console: list[str] = []
        """Errors of scripts and of the content security policy."""
        self._target = self._call("Target.createTarget", url="about:blank", background=True)["targetId"]
        attached = self._call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
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
                assert "error" not in response, f"{method}: {response['error']}"
                result: dict[str, Any] = response["result"]
                return result

    def _next_message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._reading], [], [], TIMEOUT)[0], "the browser does not respond"
            chunk = os.read(self._reading, 1 << 16)
            assert chunk, "the browser exited"
            self._buffer += chunk
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        method, params = message.get("method"), message.get("params", {})
        if method == "Log.entryAdded":
            self.console.append(params["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"]))
        elif params.get("frameId") == self._target:
            self._follow(method)
        return message

    def _follow(self, event: str | None) -> None:
        """Note what happens to the main frame. A click requests a navigation before the browser responds to it."""
        if event == "Page.frameRequestedNavigation":
            self._navigation_requested = True
        elif event in ("Page.frameStartedNavigating", "Page.frameStartedLoading"):
            self._navigation_requested, self._loading = False, True
        elif event == "Page.frameStoppedLoading":
            self._loading = False
        elif event == "Page.navigatedWithinDocument":
            self._navigation_requested = False

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
        """Click the element and wait until the page has loaded to which it leads, if any."""
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
        self._navigation_requested = True
        self._settle()

    def reset(self) -> None:
        """Leave the page, delete cookies and messages, and emulate the usual screen.

        A browser stores cookies per host, and ignores the port. The page of a stopped site would go on asking it.
        """
        self.open("about:blank")
        self._call("Network.clearBrowserCookies")
        self.console.clear()
        self.emulate()

    def log_in(self, url: str, token: str) -> None:
        """Log in to the dashboard at this URL."""
        self.open(f"{url}/login")
        self.fill("#token", token)
        self.click("button.primary")
        assert self.url == f"{url}/"

    def _settle(self) -> None:
        """Wait until every navigation that was requested has ended and its page has loaded."""
        while self._navigation_requested or self._loading:
            self._next_message()

    @property
    def url(self) -> str:
        """The address of the page."""
        return str(self.run("location.href"))

    @property
    def text(self) -> str:
        """The visible text of the page; empty before a page has a body."""
        return str(self.run("document.body?.innerText ?? ''"))

    def emulate(
        self, width: int = 1200, height: int = 900, *, dark: bool = False, scripts: bool = True
    ) -> None:
        """Emulate a screen size, a color scheme, and a browser with or without scripts."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        for method, params in (
            ("setDeviceMetricsOverride", screen),
            ("setEmulatedMedia", {"features": [scheme]}),
            ("setScriptExecutionDisabled", {"value": not scripts}),
        ):
            if self._emulated.get(method) != params:  # also an unchanged value costs a layout
                self._call(f"Emulation.{method}", **params)
                self._emulated[method] = params

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
