"""Load generator in a separate process: wrk if it is installed, or else a loop over raw sockets."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.servers import SECRET
from bridge.samples import refresh_sample, sample
from bridge.signing import sign

CONNECTIONS = 64

_SCRIPT = """
local requests, count = {}, 0
for line in io.open("%(bodies)s"):lines() do
  local stamp, signature, body = line:match("^(%%d+) (%%S+) (.*)$")
  requests[#requests + 1] = wrk.format("POST", "/webhooks/heppu", {
    ["Content-Type"] = "application/json", ["X-Webhook-Timestamp"] = stamp, ["X-Webhook-Signature-256"] = signature,
  }, body)
end
function request()
  count = count + 1
  return requests[count] or requests[#requests]
end
"""


@dataclass(frozen=True)
class LoadResult:
    """The responses of a load run."""

    rate: float
    """Responses per second."""
    p99_ms: float
    rejected: int
    """Responses other than 2xx."""


def write_bodies(path: Path, count: int) -> Path:
    """Write `count` distinct signed events of distinct contacts, one per line: timestamp, signature, body."""
    now = datetime.now(UTC)
    stamp = int(now.timestamp())
    with path.open("w") as file:
        for number in range(count):
            body = refresh_sample(sample("call.completed"), now)
            body["metadata"]["contactPhone"] = f"+1212{number:07d}"
            body["metadata"]["contactEmail"] = f"caller{number}@example.com"
            raw = json.dumps(body)
            file.write(f"{stamp} {sign(raw.encode(), SECRET.encode())} {raw}\n")
    return path


def load_generator() -> str:
    """Return the name of the load generator on this machine."""
    return "wrk" if shutil.which("wrk") else "a socket loop"


def load(url: str, bodies: Path, seconds: float) -> LoadResult:
    """Send distinct events over 64 persistent connections for `seconds`."""
    if load_generator() == "wrk":
        return _wrk(url, bodies, seconds)
    command = [sys.executable, "-m", "bench.load", url, str(bodies), str(seconds)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=seconds + 60).stdout)
    return LoadResult(**result)


def _wrk(url: str, bodies: Path, seconds: float) -> LoadResult:
    script = bodies.with_suffix(".lua")
    script.write_text(_SCRIPT % {"bodies": bodies})
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--latency", "-s", str(script), url]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    rejected = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return LoadResult(
        rate=float(_search(r"Requests/sec:\s+([\d.]+)", text)[0]),
        p99_ms=_milliseconds(*_search(r"99%\s+([\d.]+)(us|ms|s)", text)),
        rejected=int(rejected[1]) if rejected else 0,
    )


def _search(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"unexpected output of wrk:\n{text}")
    return match.groups()


def _milliseconds(value: str, unit: str) -> float:
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


async def _loop(url: str, bodies: Path, seconds: float) -> LoadResult:
    host, port = url.removeprefix("http://").split(":")
    requests = iter(
        [
            f"POST /webhooks/heppu HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body.encode())}\r\n"
            f"X-Webhook-Timestamp: {stamp}\r\nX-Webhook-Signature-256: {signature}\r\n\r\n{body}".encode()
            for stamp, signature, body in (line.rstrip("\n").split(" ", 2) for line in bodies.open())
        ]
    )
    times: list[float] = []
    rejected = 0
    end = time.perf_counter() + seconds

    async def send_requests() -> None:
        nonlocal rejected
        reader, writer = await asyncio.open_connection(host, int(port))
        for request in requests:
            sent_at = time.perf_counter()
            if sent_at > end:
                break
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            times.append(time.perf_counter() - sent_at)
            rejected += not head.startswith(b"HTTP/1.1 2")
        writer.close()

    started_at = time.perf_counter()
    await asyncio.gather(*(send_requests() for _ in range(CONNECTIONS)))
    elapsed = time.perf_counter() - started_at
    times.sort()
    return LoadResult(len(times) / elapsed, times[int(len(times) * 0.99)] * 1000, rejected)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(vars(asyncio.run(_loop(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))))))
