"""The `/_sandbox` API: received requests, provider state, and fault injection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.sandbox.faults import Fault, Faults
from bridge.sandbox.gateway import RequestLog
from bridge.sandbox.provider import MockProvider


class Control:
    """The sandbox's own endpoints. They are neither recorded nor subject to faults."""

    def __init__(
        self,
        providers: Mapping[str, MockProvider],
        log: RequestLog,
        faults: Faults,
        reset: Callable[[], None],
    ) -> None:
        self.providers = providers
        self.log = log
        self.faults = faults
        self.reset = reset
        self.commands = {
            (name, command): function
            for name, provider in providers.items()
            for command, function in provider.commands()
        }

    def routes(self) -> list[Route]:
        """Return the routes below `/_sandbox`."""
        return [
            Route("/requests", self._requests, methods=["GET", "DELETE"]),
            Route("/state", self._state, methods=["GET"]),
            Route("/faults", self._faults, methods=["GET", "POST", "DELETE"]),
            Route("/reset", self._reset, methods=["POST"]),
            Route("/{provider}/{command}", self._run_command, methods=["POST"]),
        ]

    async def _requests(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.log.clear()
            return Response(status_code=204)
        requests = self.log.all(request.query_params.get("provider"))
        return JSONResponse({"items": [item.as_json() for item in requests], "next": None})

    async def _state(self, request: Request) -> Response:
        name_filter = request.query_params.get("provider")
        return JSONResponse(
            {
                name: provider.records()
                for name, provider in self.providers.items()
                if name_filter in (None, name)
            }
        )

    async def _faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.clear()
            return Response(status_code=204)
        if request.method == "POST":
            try:
                fault = self.faults.add(Fault.model_validate_json(await request.body()))
            except ValidationError as error:
                return _error_response(
                    "; ".join(
                        f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ")
                        for item in error.errors(include_url=False, include_input=False)
                    )
                )
            return JSONResponse(_fault_json(fault), 201)
        return JSONResponse({"items": [_fault_json(fault) for fault in self.faults.active()], "next": None})

    async def _reset(self, _request: Request) -> Response:
        self.reset()
        return Response(status_code=204)

    async def _run_command(self, request: Request) -> Response:
        function = self.commands.get((request.path_params["provider"], request.path_params["command"]))
        if function is None:
            available = ", ".join(f"{provider}/{command}" for provider, command in self.commands)
            return _error_response(f"no such command; available commands: {available}", 404)
        try:
            body = json.loads(await request.body() or b"{}")
            return JSONResponse({"result": await run_in_threadpool(function, body)})
        except (ValueError, TypeError, KeyError) as error:
            return _error_response(f"invalid request body: {error}")


def _fault_json(fault: Fault) -> dict[str, Any]:
    return fault.model_dump(exclude_defaults=True) | {"provider": fault.provider, "left": fault.remaining}


def _error_response(message: str, status: int = 400) -> Response:
    return JSONResponse({"error": message}, status)
