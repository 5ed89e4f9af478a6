"""`/_sandbox`: what arrived, what the partners hold, and what goes wrong next."""

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
from bridge.sandbox.provider import Partner


class Control:
    """The sandbox's own endpoints; they are not recorded and meet no faults."""

    def __init__(
        self, partners: Mapping[str, Partner], log: RequestLog, faults: Faults, reset: Callable[[], None]
    ) -> None:
        self.partners = partners
        self.log = log
        self.faults = faults
        self.reset = reset
        self.acts = {
            (name, word): act for name, partner in partners.items() for word, act in partner.controls()
        }

    def routes(self) -> list[Route]:
        """The routes below `/_sandbox`."""
        return [
            Route("/requests", self._requests, methods=["GET", "DELETE"]),
            Route("/state", self._state, methods=["GET"]),
            Route("/faults", self._faults, methods=["GET", "POST", "DELETE"]),
            Route("/reset", self._reset, methods=["POST"]),
            Route("/{partner}/{word}", self._act, methods=["POST"]),
        ]

    async def _requests(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.log.clear()
            return Response(status_code=204)
        found = self.log.all(request.query_params.get("partner"))
        return JSONResponse({"items": [item.as_json() for item in found], "next": None})

    async def _state(self, request: Request) -> Response:
        wanted = request.query_params.get("partner")
        return JSONResponse(
            {name: partner.records() for name, partner in self.partners.items() if wanted in (None, name)}
        )

    async def _faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.clear()
            return Response(status_code=204)
        if request.method == "POST":
            try:
                fault = self.faults.add(Fault.model_validate_json(await request.body()))
            except ValidationError as error:
                return _problem(
                    "; ".join(
                        f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ")
                        for item in error.errors(include_url=False, include_input=False)
                    )
                )
            return JSONResponse(_fault_json(fault), 201)
        return JSONResponse({"items": [_fault_json(fault) for fault in self.faults.standing()], "next": None})

    async def _reset(self, _request: Request) -> Response:
        self.reset()
        return Response(status_code=204)

    async def _act(self, request: Request) -> Response:
        act = self.acts.get((request.path_params["partner"], request.path_params["word"]))
        if act is None:
            known = ", ".join(f"{partner}/{word}" for partner, word in self.acts)
            return _problem(f"nothing to do here; there are {known}", 404)
        try:
            body = json.loads(await request.body() or b"{}")
            return JSONResponse({"result": await run_in_threadpool(act, body)})
        except (ValueError, TypeError, KeyError) as error:
            return _problem(f"the body does not fit: {error}")


def _fault_json(fault: Fault) -> dict[str, Any]:
    return fault.model_dump(exclude_defaults=True) | {"partner": fault.partner, "left": fault.left}


def _problem(text: str, status: int = 400) -> Response:
    return JSONResponse({"error": text}, status)
