"""arq: asyncio jobs in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import run_worker

from bench.peers.job import STORE_URL, do_job, receiver

_settings = RedisSettings.from_dsn(STORE_URL)
_pool: ArqRedis


@asynccontextmanager
async def _lifespan(_: Any) -> AsyncIterator[None]:
    global _pool
    _pool = await create_pool(_settings)
    yield


async def _enqueue(body: str) -> None:
    await _pool.enqueue_job("run", body)


async def run(context: dict[str, Any], body: str) -> None:
    """Do one job."""
    del context
    do_job(body)


app = receiver(_enqueue, _lifespan)


class WorkerSettings:
    """Settings of the worker: results are not kept, and the queue is polled often."""

    functions = [run]
    redis_settings = _settings
    keep_result = 0
    max_jobs = 100
    poll_delay = 0.05


if __name__ == "__main__":
    run_worker(WorkerSettings)
