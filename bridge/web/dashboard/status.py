"""Status: the processes, the database and what the service received."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge import __version__
from bridge.clock import format_duration
from bridge.store.gauges import MAX_COUNTED
from bridge.store.service_status import read_service_status
from bridge.telemetry import mask_address
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import page, render_page

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_CLOCK_TOLERANCE: Final = timedelta(seconds=2)


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/status", partial(_status, service))]


def _status(service: AdminService, request: Request) -> Response:
    """Show the state of the service itself."""
    status = read_service_status(service.database)
    alive = sum(worker.is_alive for worker in status.workers)
    return render_page(
        request,
        service,
        "status.html",
        title=f"{alive} {'worker runs' if alive == 1 else 'workers run'}: status",
        service_status=status,
        version=__version__,
        size=format_bytes(status.size),
        disk_free=None if status.disk_free is None else format_bytes(status.disk_free),
        max_counted=MAX_COUNTED,
        clock_differs=abs(status.clock_difference) > _CLOCK_TOLERANCE,
        retention=None if service.retention is None else format_duration(service.retention),
        allowlist=[mask_address(address) for address in service.allowlist],
    )


def format_bytes(size: int) -> str:
    """Return a size for people: `12.3 MiB`."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"
