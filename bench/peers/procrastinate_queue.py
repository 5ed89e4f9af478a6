"""Procrastinate: jobs in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import procrastinate

from bench.peers.job import STORE_URL, do_job, receiver

queue = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=STORE_URL, max_size=16))


@queue.task(name="run")
async def run(body: str) -> None:
    """Do one job."""
    do_job(body)


@asynccontextmanager
async def _lifespan(_: Any) -> AsyncIterator[None]:
    async with queue.open_async():
        if not await queue.check_connection_async():
            await queue.schema_manager.apply_schema_async()
        yield


async def _enqueue(body: str) -> None:
    await run.defer_async(body=body)


app = receiver(_enqueue, _lifespan)


async def _work() -> None:
    async with queue.open_async():
        await queue.run_worker_async(concurrency=16, delete_jobs="successful")


if __name__ == "__main__":
    asyncio.run(_work())
