"""Load from a separate process: wrk when it is installed, else a loop of our own over raw sockets."""

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
from bridge.samples import sample, stamped
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
class Load:
    """What a load run saw."""

    rate: float
    """Answers per second."""
    p99_ms: float
    refused: int
    """Answers other than 2xx."""


def write_bodies(path: Path, count: int) -> Path:
    """`count` distinct signed events of distinct people, a line each: timestamp, signature, body."""
    now = datetime.now(UTC)
    stamp = int(now.timestamp())
    with path.open("w") as file:
        for number in range(count):
            body = stamped(sample("call.completed"), now)
            body["metadata"]["contactPhone"] = f"+1212{number:07d}"
            body["metadata"]["contactEmail"] = f"caller{number}@example.com"
            raw = json.dumps(body)
            file.write(f"{stamp} {sign(raw.encode(), SECRET.encode())} {raw}\n")
    return path


def tool() -> str:
    """What sends the load on this machine."""
    return "wrk" if shutil.which("wrk") else "a loop of our own"


def load(url: str, bodies: Path, seconds: float) -> Load:
    """Send distinct events over 64 kept connections for `seconds`."""
    if tool() == "wrk":
        return _wrk(url, bodies, seconds)
    command = [sys.executable, "-m", "bench.load", url, str(bodies), str(seconds)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=seconds + 60).stdout)
    return Load(**found)


def _wrk(url: str, bodies: Path, seconds: float) -> Load:
    script = bodies.with_suffix(".lua")
    script.write_text(_SCRIPT % {"bodies": bodies})
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--latency", "-s", str(script), url]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Load(
        rate=float(_found(r"Requests/sec:\s+([\d.]+)", text)[0]),
        p99_ms=_milliseconds(*_found(r"99%\s+([\d.]+)(us|ms|s)", text)),
        refused=int(refused[1]) if refused else 0,
    )


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk said something unexpected:\n{text}")
    return match.groups()


def _milliseconds(value: str, unit: str) -> float:
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


async def _loop(url: str, bodies: Path, seconds: float) -> Load:
    host, port = url.removeprefix("http://").split(":")
    requests = iter(
        [
            f"POST /webhooks/heppu HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body.encode())}\r\n"
            f"X-Webhook-Timestamp: {stamp}\r\nX-Webhook-Signature-256: {signature}\r\n\r\n{body}".encode()
            for stamp, signature, body in (line.rstrip("\n").split(" ", 2) for line in bodies.open())
        ]
    )
    times: list[float] = []
    refused = 0
    end = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection(host, int(port))
        for request in requests:
            begun = time.perf_counter()
            if begun > end:
                break
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            times.append(time.perf_counter() - begun)
            refused += not head.startswith(b"HTTP/1.1 2")
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    elapsed = time.perf_counter() - begun
    times.sort()
    return Load(len(times) / elapsed, times[int(len(times) * 0.99)] * 1000, refused)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(vars(asyncio.run(_loop(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))))))
