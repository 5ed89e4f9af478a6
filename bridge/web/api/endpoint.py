"""Endpoints: how a module of the API declares its requests, their parameters, responses and errors.

The declaration is the only definition of an endpoint: its requests are validated with it, and the OpenAPI document and
the reference page are generated from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NotRequired, TypedDict, TypeVar, Unpack

from bridge.errors import BridgeError
from bridge.store.database import Database
from bridge.store.operator_actions import ActionResult
from bridge.web.access import Access, required_access
from bridge.web.admin_service import AdminService
from bridge.web.validation import Parameters

PREFIX: Final = "/api"
MAX_BODY: Final = 64 * 1024


@dataclass(frozen=True)
class Call:
    """A validated request to an endpoint. A handler runs in a thread of its own, so it may block."""

    service: AdminService
    actor: str
    path: Mapping[str, str]
    """The variable parts of the path."""

    @property
    def database(self) -> Database:
        """The database."""
        return self.service.database

    @property
    def id(self) -> str:
        """The ID in the path."""
        return self.path["id"]

    @property
    def name(self) -> str:
        """The name in the path."""
        return self.path["name"]


class ApiError(BridgeError):
    """The request cannot be fulfilled. The response has the message as `error`, and `details` as further fields."""

    def __init__(self, status: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


class NoParameters(Parameters):
    """A request without query parameters and without a body."""


Handler = Callable[..., Any]
"""Takes the call, and the model of its parameters if it has any. Returns what `--json` prints: a mapping, a dataclass
or an object with `to_json`."""
F = TypeVar("F", bound=Handler)


@dataclass(frozen=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    """Path below `/api`, such as `/events/{id}`."""
    handler: Handler
    parameters: type[Parameters]
    """The query parameters of a GET, or the JSON fields of any other method."""
    response: Any
    """Type of the response: a TypedDict or a dataclass."""
    tag: str
    errors: Mapping[int, str]
    """Status of an error that not every request can have -> when it occurs."""
    max_body: int = MAX_BODY
    """Bytes of a request."""

    @property
    def full_path(self) -> str:
        """The path, without the types of its variables."""
        return PREFIX + self.path.replace(":path", "")

    @property
    def summary(self) -> str:
        """What the endpoint does, as one line."""
        return self._doc.partition("\n")[0]

    @property
    def description(self) -> str:
        """What else a client should know; may be empty."""
        return self._doc.partition("\n")[2].strip()

    @property
    def operation_id(self) -> str:
        """The name of the endpoint in generated clients."""
        return self.handler.__name__

    @property
    def access(self) -> Access:
        """The access that a request needs."""
        return required_access({"method": self.method, "path": self.full_path})

    @property
    def has_query(self) -> bool:
        """Whether the parameters are in the query string, and not in the body."""
        return self.method == "GET"

    @property
    def _doc(self) -> str:
        return inspect.cleandoc(self.handler.__doc__ or "")


class _Declared(TypedDict):
    """How a handler is declared: see the fields of `Endpoint`."""

    response: Any
    errors: NotRequired[Mapping[int, str]]
    max_body: NotRequired[int]


@dataclass(frozen=True)
class Resource:
    """The endpoints of one module. A handler is declared with `get`, `post` or `delete`.

    The annotation of a handler's second parameter is the model of the query parameters or JSON fields. The first line
    of its docstring is the summary. A path with a variable can always respond 404; `errors` names others.
    """

    tag: str
    description: str
    endpoints: list[Endpoint] = field(default_factory=list)

    def get(self, path: str, **declared: Unpack[_Declared]) -> Callable[[F], F]:
        """Declare a handler that reads; it has query parameters."""
        return self._declare("GET", path, **declared)

    def post(self, path: str, **declared: Unpack[_Declared]) -> Callable[[F], F]:
        """Declare a handler with JSON fields. It needs a token for everything, unless `access.READING_POSTS` has it."""
        return self._declare("POST", path, **declared)

    def delete(self, path: str, **declared: Unpack[_Declared]) -> Callable[[F], F]:
        """Declare a handler that deletes something; it has JSON fields."""
        return self._declare("DELETE", path, **declared)

    def _declare(
        self,
        method: str,
        path: str,
        *,
        response: Any,
        errors: Mapping[int, str] | None = None,
        max_body: int = MAX_BODY,
    ) -> Callable[[F], F]:
        def declare(handler: F) -> F:
            _, *rest = inspect.signature(handler, eval_str=True).parameters.values()
            parameters = rest[0].annotation if rest else NoParameters
            self.endpoints.append(
                Endpoint(method, path, handler, parameters, response, self.tag, dict(errors or {}), max_body)
            )
            return handler

        return declare


def require_done(result: ActionResult) -> ActionResult:
    """Return the result of an action. Raise ApiError if it was not possible."""
    if not result.done:
        raise ApiError(409, result.text, id=result.id)
    return result
