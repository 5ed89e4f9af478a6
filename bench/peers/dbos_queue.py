"""DBOS: durable workflows in PostgreSQL."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dbos import DBOS, DBOSClient, DBOSConfig

from bench.peers.job import STORE_URL, do_job, receiver

_QUEUE = "events"
_client: DBOSClient


_config = DBOSConfig(
    name="peer", system_database_url=STORE_URL, application_version="1", run_admin_server=False
)


@asynccontextmanager
async def _lifespan(_: Any) -> AsyncIterator[None]:
    global _client
    _client = DBOSClient(system_database_url=STORE_URL)
    yield


async def _enqueue(body: str) -> None:
    await _client.enqueue_async({"queue_name": _QUEUE, "workflow_name": "run", "app_version": "1"}, body)


app = receiver(_enqueue, _lifespan)


def _work() -> None:
    DBOS(config=_config)

    @DBOS.workflow(name="run")
    def run(body: str) -> None:
        do_job(body)

    DBOS.launch()
    DBOS.register_queue(_QUEUE, worker_concurrency=100, polling_interval_sec=0.05)
    signal.pause()


if __name__ == "__main__":
    _work()
