"""To come."""

from collections.abc import Sequence
from starlette.routing import BaseRoute
from bridge.web.desk import Desk


def page_routes(desk: Desk) -> Sequence[BaseRoute]:
    return []
