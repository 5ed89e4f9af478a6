"""The pattern of Heppu's documentation: a handler that pushes to a Redis list, and a worker that pops from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.asyncio

from bench.peers.job import STORE_URL, do_job, receiver

_client = redis.asyncio.Redis.from_url(STORE_URL)


@asynccontextmanager
async def _lifespan(_: Any) -> AsyncIterator[None]:
    yield
    await _client.aclose()


async def _enqueue(body: str) -> None:
    await _client.lpush("events", body)


app = receiver(_enqueue, _lifespan)


def work() -> None:
    """Do the jobs, one after the other. A job that was popped is lost if the worker is killed."""
    client = redis.Redis.from_url(STORE_URL)
    while True:
        item = client.brpop(["events"])
        do_job(item[1].decode())


if __name__ == "__main__":
    work()
