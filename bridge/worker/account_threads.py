"""Threads of one account. One that hangs can be replaced: Python cannot end a thread, but can do without it."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from bridge.telemetry import log

Work = Callable[[], None]

MAX_REPLACED: Final = 32
"""Threads of an account that hang and were replaced. More than that are not: each costs memory."""


class AccountThreads:
    """Runs work in up to `limit` threads, oldest first. Its methods are thread-safe.

    The threads are daemons, because the process must be able to exit while one of them hangs.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._threads = 0
        """Threads that are not replaced."""
        self._idle = 0
        self._replaced: set[int] = set()
        self._closed = False

    def submit(self, work: Work) -> None:
        """Have `work` run; raise RuntimeError if that is impossible."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the account is closed")
            self._waiting.append(work)
            try:
                self._provide_thread()
            except RuntimeError:
                self._waiting.pop()
                raise

    def replace(self, thread: int) -> bool:
        """Let another thread take the place of one that hangs, given its `threading.get_ident`.

        It ends once its work returns. Return False if too many threads hang.
        """
        with self._changed:
            if len(self._replaced) >= MAX_REPLACED:
                return False
            self._replaced.add(thread)
            self._threads -= 1
            if self._waiting:
                self._provide_thread()
            return True

    def close(self) -> None:
        """End the threads as soon as they are idle, and drop the work that waits."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _provide_thread(self) -> None:
        if self._idle >= len(self._waiting):
            self._changed.notify()
        elif self._threads < self._limit:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
            self._threads += 1

    def _run(self) -> None:
        while work := self._next():
            try:
                contextvars.Context().run(work)
            except Exception as error:
                log.error("thread of an account failed unexpectedly", thread=self._name, exc_info=error)

    def _next(self) -> Work | None:
        """Wait for work; return None if this thread is to end."""
        thread = threading.get_ident()
        with self._changed:
            if thread in self._replaced:
                self._replaced.discard(thread)
                return None
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._idle -= 1
            return self._waiting.popleft() if self._waiting else None
