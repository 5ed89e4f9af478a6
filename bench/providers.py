"""Benchmarks with a provider: throughput over a real SDK to a slow provider, and latency of the first request."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx

from bench.databases import BridgeDatabase, Engine
from bench.load import load, write_bodies
from bench.rows import Row, drain, row
from bench.servers import BRIDGE, bridge_server, post, run_workers, wait_for_worker

CONCURRENCY: Final = 8
"""Simultaneous calls."""
LATENCY: Final = 0.05
"""Seconds that the provider takes per message."""
MESSAGES: Final = 800
TARGET_SDK, FLOOR_SDK = 0.95, 0.8
EVENTS: Final = 100
TARGET_FIRST_MS: Final = 20.0

_CONNECTOR = f'''
"""Twilio over its SDK, without a rate limit, so that only the bridge is measured."""

from bridge.connector import Connector, Context, Limits, Success, per_message
from bridge_connectors import twilio
from bridge_connectors.twilio.account import Account
from bridge_connectors.twilio.sms import SmsParams

connector = Connector("texts", settings=twilio.Settings, limits=Limits(concurrency={CONCURRENCY}))
connector.client(twilio.client)
connector.classify_error(twilio.classify_error)


@connector.action(channel="sms", idempotency=per_message)
def send(account: Account, params: SmsParams, context: Context) -> Success:
    """Send one text message."""
    return twilio.send_sms.run(account, params, context)


@send.lookup
def find(account: Account, params: SmsParams, context: Context) -> Success | None:
    """See the shipped connector."""
    return twilio.find_sms(account, params, context)
'''

_RULES = """
version: 1
messaging: {quiet_hours: none, caps: {total: {sms: 99999 per 1h}}}
rules:
  - name: text
    when: call.completed
    do: [{use: texts.send, with: {body: "Thank you for the call."}}]
"""


def through_sdk(engine: Engine, folder: Path) -> Row:
    """Measure a backlog of text messages, one request each, against plain threads over the same SDK."""
    with slow_sandbox() as environ:
        baseline = _plain_threads(environ)
        connector_environ = {name.replace("TWILIO_", "TEXTS_"): value for name, value in environ.items()}
        (folder / "connectors").mkdir(exist_ok=True)
        (folder / "connectors" / "texts.py").write_text(_CONNECTOR)
        bodies = write_bodies(folder / "bodies", MESSAGES)
        with engine.new() as url:
            database = BridgeDatabase(url)
            drain(
                url, database, folder, lambda address: load(address, bodies, 3.0), _RULES, **connector_environ
            )
            sent, microseconds = database.row(
                "SELECT count(*), max(finished_at) - min(first_attempt_at) FROM deliveries WHERE state = 'succeeded'"
            )
            if sent != database.events():
                raise SystemExit(f"{sent} text messages for {database.events()} events")
    rate = int(sent) / (float(microseconds) / 1e6)
    return row(
        f"{engine.name}: text messages/s over Twilio's SDK, {LATENCY * 1000:.0f} ms each, {CONCURRENCY} parallel; "
        "plain threads",
        [rate], [baseline], at_least=TARGET_SDK, floor=FLOOR_SDK,
    )  # fmt: skip


def first_request(engine: Engine, folder: Path, *, separate_worker: bool = False) -> Row:
    """Measure the time from an event to the request to the provider in an idle service.

    With `separate_worker`, `bridge worker` runs next to a server without a worker.
    """
    with engine.new() as url:
        options = ["--no-worker"] if separate_worker else []
        with (
            bridge_server(folder, url, *options) as address,
            run_workers(folder, url, int(separate_worker)),
        ):
            if not separate_worker:
                wait_for_worker(address)
            with httpx.Client(base_url=address, timeout=30) as heppu:
                for line in write_bodies(folder / "bodies", EVENTS).open():
                    post(heppu, line)
                    time.sleep(0.05)
            database = BridgeDatabase(url)
            database.wait_until_final()
        rows = database.rows(
            "SELECT CAST(d.external_id AS BIGINT) - e.received_at FROM deliveries d JOIN events e ON e.id = d.event_id"
        )
    milliseconds = sorted(int(microseconds) / 1000 for (microseconds,) in rows)
    p95 = milliseconds[int(len(milliseconds) * 0.95)]
    return Row(
        f"{engine.name}: event received to first request{', separate worker process' if separate_worker else ''}; "
        "median and p95, ms",
        f"{statistics.median(milliseconds):.0f} / {p95:.0f}", "", "", f"<= {TARGET_FIRST_MS:.0f}",
        p95 <= TARGET_FIRST_MS, advisory=True,
    )  # fmt: skip


@contextmanager
def slow_sandbox() -> Iterator[dict[str, str]]:
    """Run the sandbox as a process in which every text message takes a while; yield the environment for a bridge."""
    command = [BRIDGE, "sandbox", "--port", "0", "--smtp-port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            sandbox: dict[str, Any] = json.loads(_read_object(process.stdout))
            fault = {"provider": "twilio", "delay": LATENCY, "times": None}
            httpx.post(f"{sandbox['url']}/_sandbox/faults", json=fault).raise_for_status()
            yield dict(sandbox["environment"])
        finally:
            process.send_signal(signal.SIGTERM)


def _read_object(lines: Iterable[str]) -> str:
    """Return the lines of a JSON object. Without its last line, the process has exited."""
    printed = ""
    for line in lines:
        printed += line
        if line == "}\n":
            return printed
    raise SystemExit(f"the sandbox exited before it was ready: {printed}")


def _plain_threads(environ: dict[str, str]) -> float:
    """Return the text messages per second that plain threads send over the SDK."""
    from bridge_connectors import twilio

    account = twilio.client(twilio.Settings.from_environment(environ, "TWILIO_"))
    numbers = count()
    started_at = time.perf_counter()

    def work() -> None:
        while (number := next(numbers)) < MESSAGES:
            account.api.messages.create(
                to=f"+1646{number:07d}", from_=account.settings.sender, body="Thank you for the call."
            )

    threads = [threading.Thread(target=work) for _ in range(CONCURRENCY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    account.close()
    return MESSAGES / (time.perf_counter() - started_at)
