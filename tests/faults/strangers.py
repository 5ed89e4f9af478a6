"""Strangers that misuse the open port, in a process of their own: `python -m tests.faults.strangers KIND PORT NUMBER`.

`hold` keeps NUMBER requests half-sent and reopens those that the server closes; `fill` does so with almost 1 MiB of
each body; `flood` sends NUMBER unsigned requests per second. All print a line once they are at full strength, and run
until their standard input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

FLOOD_CONNECTIONS = 4
BATCH = 25
"""Requests that are sent ahead on one connection."""

_UNSIGNED = b"POST /webhooks/heppu HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def half_sent(number: int) -> bytes:
    """Return the beginning of a request, of which there are four kinds."""
    if number % 4 == 0:
        return b"POST /webhooks/heppu HTTP/1.1\r\nHost: x\r\nContent-Le"
    path, signature = (
        (b"/webhooks/heppu", b"X-Webhook-Signature-256: sha256=" + b"0" * 64),
        (b"/webhooks/twilio/status", b"X-Twilio-Signature: " + b"A" * 28),
        (b"/login", b"X: y"),
    )[number % 4 - 1]
    return (
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"X-Webhook-Timestamp: %d\r\n%s\r\nContent-Length: 1000\r\n\r\nab" % (path, time.time(), signature)
    )


def almost_complete(_: int) -> bytes:
    """Return a request of 1 MiB without its last bytes, with a signature that cannot be checked before they arrive."""
    return (
        b"POST /webhooks/heppu HTTP/1.1\r\nHost: x\r\nX-Webhook-Timestamp: %d\r\n"
        b"X-Webhook-Signature-256: sha256=%s\r\nContent-Length: %d\r\n\r\n"
        % (time.time(), b"0" * 64, 1024 * 1024)
    ) + b"x" * (1024 * 1024 - 200)


async def hold(port: int, count: int, request: Callable[[int], bytes], pause: float) -> None:
    """Keep `count` requests half-sent. Open a closed connection again after `pause` seconds."""
    opened: set[int] = set()

    async def stranger(number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request(number))
                opened.add(number)
                if len(opened) == count:
                    opened.clear()
                    print(f"{count} requests sent", flush=True)
                await reader.read()
                writer.close()
            await asyncio.sleep(pause)

    await asyncio.gather(*(stranger(number) for number in range(count)))


async def flood(port: int, per_second: int) -> None:
    """Send `per_second` unsigned requests per second, and read the responses."""
    start = asyncio.get_running_loop().time()
    responses = 0

    async def stranger() -> None:
        nonlocal responses
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = 0
        while True:
            due = start + sent * FLOOD_CONNECTIONS / per_second
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            writer.write(_UNSIGNED * BATCH)
            sent += BATCH
            for _ in range(BATCH):
                await reader.readuntil(b"}")
            responses += BATCH

    async def report() -> None:
        while True:
            before = responses
            await asyncio.sleep(1)
            print(f"{responses - before} responses", flush=True)

    await asyncio.gather(report(), *(stranger() for _ in range(FLOOD_CONNECTIONS)))


async def _main() -> None:
    kind, port, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    attacks: dict[str, Callable[[int, int], Coroutine[Any, Any, None]]] = {
        "hold": partial(hold, request=half_sent, pause=1.0),
        "fill": partial(hold, request=almost_complete, pause=30.0),
        "flood": flood,
    }
    attack = asyncio.create_task(attacks[kind](port, number))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    attack.cancel()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_main())
