"""Speed through a real SDK against a partner that takes a while, and how soon an idle service calls its partner."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx

from bench.databases import Engine, Store
from bench.load import load, write_bodies
from bench.rows import Row, drain, row
from bench.servers import BRIDGE, bridge_server, bridge_worker, post, wait_for_worker

WIDTH: Final = 8
"""Calls at once."""
LATENCY: Final = 0.05
"""Seconds that the partner takes for each."""
TEXTS: Final = 800
BAR_SDK: Final = 0.8
EVENTS: Final = 100
BAR_FIRST_MS: Final = 50.0

_CONNECTOR = f'''
"""Twilio over its SDK, without an account's own limit of texts a second: what is measured is the bridge."""

from bridge.connector import Connector, Context, Limits, Success, per_message
from bridge_connectors import twilio

connector = Connector("texts", settings=twilio.Settings, limits=Limits(concurrency={WIDTH}))
connector.client(twilio.client)
connector.classify_error(twilio.failure)


@connector.action(channel="sms", idempotency=per_message)
def send(account: twilio.Account, sms: twilio.Sms, context: Context) -> Success:
    """Text a person."""
    return twilio.send_sms.run(account, sms, context)


@send.lookup
def find(account: twilio.Account, sms: twilio.Sms, context: Context) -> Success | None:
    """See the shipped connector."""
    return twilio.find_sms(account, sms, context)
'''

_RULES = """
version: 1
messaging: {quiet_hours: none}
rules:
  - name: text
    when: call.completed
    do: [{use: texts.send, with: {body: "Thank you for the call."}}]
"""


def through_sdk(engine: Engine, folder: Path) -> Row:
    """A backlog of texts, one request each, beside a bare loop of as many threads over the same SDK."""
    with slow_sandbox() as environ:
        bare = _bare_loop(environ)
        texts = {name.replace("TWILIO_", "TEXTS_"): value for name, value in environ.items()}
        (folder / "connectors").mkdir(exist_ok=True)
        (folder / "connectors" / "texts.py").write_text(_CONNECTOR)
        bodies = write_bodies(folder / "bodies", TEXTS)
        with engine.new() as url:
            store = Store(url)
            drain(url, store, folder, lambda address: load(address, bodies, 3.0), _RULES, **texts)
            sent, microseconds = store.row(
                "SELECT count(*), max(finished_at) - min(first_attempt_at) FROM deliveries WHERE state = 'succeeded'"
            )
            if sent != store.events():
                raise SystemExit(f"{sent} texts for {store.events()} events")
    rate = int(sent) / (float(microseconds) / 1e6)
    return row(
        f"{engine.name}: texts/s over Twilio's SDK, {LATENCY * 1000:.0f} ms each, {WIDTH} at once; bare threads",
        [rate], [bare], at_least=BAR_SDK,
    )  # fmt: skip


def first_request(engine: Engine, folder: Path, *, apart: bool = False) -> Row:
    """How long an idle service takes from an event to its partner's request; `apart`, with the worker elsewhere."""
    with engine.new() as url:
        options = ["--no-worker"] if apart else []
        with bridge_server(folder, url, *options) as address, bridge_worker(folder, url, apart):
            if not apart:
                wait_for_worker(address)
            with httpx.Client(base_url=address, timeout=30) as heppu:
                for line in write_bodies(folder / "bodies", EVENTS).open():
                    post(heppu, line)
                    time.sleep(0.05)
            store = Store(url)
            store.wait_until_sent()
        found = store.rows(
            "SELECT CAST(d.external_id AS BIGINT) - e.received_at FROM deliveries d JOIN events e ON e.id = d.event_id"
        )
    milliseconds = sorted(int(late) / 1000 for (late,) in found)
    p95 = milliseconds[int(len(milliseconds) * 0.95)]
    return Row(
        f"{engine.name}: event received to first request{', worker in another process' if apart else ''}; "
        "median and p95, ms",
        f"{statistics.median(milliseconds):.0f} / {p95:.0f}", "", "", f"<= {BAR_FIRST_MS:.0f}", p95 <= BAR_FIRST_MS,
        advisory=True,
    )  # fmt: skip


@contextmanager
def slow_sandbox() -> Iterator[dict[str, str]]:
    """The partners in a process of their own, each text taking a while; yields a bridge's environment."""
    command = [BRIDGE, "sandbox", "--port", "0", "--smtp-port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            printed = "".join(iter(process.stdout.readline, "}\n")) + "}"
            found: dict[str, Any] = json.loads(printed)
            fault = {"partner": "twilio", "delay": LATENCY, "times": None}
            httpx.post(f"{found['url']}/_sandbox/faults", json=fault).raise_for_status()
            yield dict(found["environment"])
        finally:
            process.send_signal(signal.SIGTERM)


def _bare_loop(environ: dict[str, str]) -> float:
    """Texts a second that bare threads send over the SDK."""
    from bridge_connectors import twilio

    account = twilio.client(twilio.Settings.from_environment(environ, "TWILIO_"))
    numbers = count()
    begun = time.perf_counter()

    def work() -> None:
        while (number := next(numbers)) < TEXTS:
            account.api.messages.create(
                to=f"+1646{number:07d}", from_=account.settings.sender, body="Thank you for the call."
            )

    threads = [threading.Thread(target=work) for _ in range(WIDTH)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    account.close()
    return TEXTS / (time.perf_counter() - begun)
