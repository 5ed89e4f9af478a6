"""The action `http.request`: one request to a service, which can be repeated under the same ID."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlencode

import httpx

from bridge.connector import (
    Context,
    Params,
    SerializeBy,
    Success,
    json_object,
    param,
    parse_retry_after,
    per_event,
)
from bridge.errors import DeliveryError, OutcomeUnknown, PermanentError, TransientError

from .sender import MAX_ANSWER_BYTES, NOT_ALLOWED, Sender, is_allowed, is_script, receiver_of
from .settings import Settings, connector, header_problem

MAX_BODY_BYTES = 256 * 1024
"""Largest body. A larger one is rejected before anything is sent."""
MAX_ID_LENGTH = 200
_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"


class RequestParams(Params):
    """One request to a service."""

    target: str | None = param(
        None, "Name of a secret URL: `zapier` for the one in HTTP_TARGETS_ZAPIER.", example="zapier"
    )
    url: str | None = param(
        None,
        "URL that is not a secret: https, with a host in HTTP_ALLOWED_HOSTS. Default: HTTP_URL.",
        example="https://erp.example.com/heppu",
    )
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = param(
        "POST", "Method. DELETE has no body.", example="POST"
    )
    headers: dict[str, str] = param(
        {}, "Additional headers. Secrets belong in HTTP_TARGETS_<NAME>_HEADER.", example={"X-Source": "heppu"}
    )
    body: Any = param(None, "Body, sent as JSON. Default: the whole event.", example={"kind": "call"})
    form: dict[str, str | int | float | bool | None] | None = param(
        None, "Fields of a form, sent instead of a JSON body.", example={"kind": "call"}
    )
    id_field: str | None = param(
        None,
        "Field that gets the ID of the request in an object or a form, for receivers that do not read headers. "
        "A repeated request has the same ID.",
        example="request_id",
        min_length=1,
    )
    id_from: str | None = param(
        None,
        "Path of the receiver's ID in its JSON answer, as `data.id`. It is stored as the external ID.",
        example="data.id",
        min_length=1,
    )


@connector.action(
    idempotency=per_event,
    dedupe_by=("target", "url", "method"),
    serialize_by=SerializeBy.NONE,
    idempotent=True,
)
def request(sender: Sender, params: RequestParams, context: Context) -> Success:
    """Send a request to a service. Retries have the same `webhook-id`, so that the service can ignore duplicates."""
    message_id = "msg_" + context.idempotency_token
    content, content_type = _content(params, context, message_id)
    receiver = receiver_of(sender.settings, params.target, params.url)
    for name, value in params.headers.items():
        if problem := header_problem(name, value):
            raise PermanentError(f"the header {name[:50]!r} {problem}", code="header")
    own = {name.lower() for name in receiver.headers}
    headers = {
        **{name: value for name, value in params.headers.items() if name.lower() not in own},
        **receiver.headers,
        **sender.signature_headers(message_id, context.now, content or ""),
        "Idempotency-Key": message_id,
    }
    if content is not None:
        headers["Content-Type"] = content_type
    if context.traceparent:
        headers["traceparent"] = context.traceparent
    body = None if content is None else content.encode()
    with sender.send(params.method, receiver.url, body, headers) as response:
        if is_script(receiver.url) and response.status_code < 400:
            with sender.output_of_script(response) as output:
                return _script_result(output, params, message_id)
        return _result(response, params, message_id)


def _content(params: RequestParams, context: Context, message_id: str) -> tuple[str | None, str]:
    """Return the body as text, and its type; None for a request without one."""
    if params.method == "DELETE":
        return None, ""
    if params.form is not None:
        fields = {name: value for name, value in params.form.items() if value is not None}
        if params.id_field is not None:
            fields[params.id_field] = message_id
        text, kind = urlencode({name: _form_value(value) for name, value in fields.items()}), _FORM
    else:
        body = context.event.body if params.body is None else params.body
        if params.id_field is not None:
            if not isinstance(body, Mapping):
                raise PermanentError("`id_field` needs a body that is an object, or a form")
            body = {**body, params.id_field: message_id}
        text, kind = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False), _JSON
    if len(text.encode()) > MAX_BODY_BYTES:
        raise PermanentError(f"the body exceeds {MAX_BODY_BYTES} bytes: send fewer fields", code="size")
    return text, kind


def _form_value(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _result(response: httpx.Response, params: RequestParams, message_id: str) -> Success:
    if not response.is_success:
        raise _failure(response)
    detail = f"service answered {response.status_code}"
    if params.id_from is None:
        return Success(id=message_id, detail=detail)
    external_id = _id_in(_answer(response), params.id_from)
    if external_id is None:
        return Success(id=message_id, detail=f"{detail} without `{params.id_from}`")
    return Success(id=external_id, detail=detail)


def _script_result(output: httpx.Response, params: RequestParams, message_id: str) -> Success:
    """Return the result of a script of Google that has run: it says `{"ok": false}` for what it did not do."""
    if not output.is_success:
        raise OutcomeUnknown(f"the script's output answered {output.status_code}", reason="server_error")
    answer = _answer(output)
    if answer.get("ok") is False:
        raise PermanentError("the script answered that it did not do it; see its executions", code="script")
    external_id = _id_in(answer, params.id_from) if params.id_from else None
    return Success(id=external_id or message_id, detail="the script ran")


def _answer(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a response; an empty one if it is anything else, or too large."""
    content = bytearray()
    for part in response.iter_raw():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            return {}
    return json_object(httpx.Response(200, content=bytes(content)))


def _id_in(answer: Mapping[str, Any], path: str) -> str | None:
    value: Any = answer
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if text.isprintable() and 0 < len(text) <= MAX_ID_LENGTH else None


def _failure(response: httpx.Response) -> DeliveryError:
    """Return the error of a response. Never RateLimited or AuthenticationError, which pause the whole connection."""
    status = response.status_code
    retry_after = parse_retry_after(response.headers.get("Retry-After"))
    if status == 429:
        return TransientError(
            "the service asks for fewer requests (429)", reason="rate_limited", retry_after=retry_after
        )
    if status >= 500 or status in (408, 425):
        return OutcomeUnknown(
            f"the service answered {status}", reason="server_error", retry_after=retry_after
        )
    if 300 <= status < 400:
        return PermanentError(
            f"the service answered {status}; redirects are not followed: use the final address",
            code=str(status),
        )
    return PermanentError(f"the service answered {status}", code=str(status))


@request.check_params
def check_request(settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Find what cannot be sent before the first event fails: a wrong receiver or header, or a body that is left out."""
    target, url = params.get("target"), params.get("url")
    if "target" in params and "url" in params:  # otherwise, one of them is a template
        try:
            receiver_of(settings, target, url)
        except PermanentError as error:
            return error.detail
    return _body_problem(params) or _header_problem(params) or (_host_problem(settings, url) if url else None)


def _body_problem(params: Mapping[str, Any]) -> str | None:
    """Return which body of the rule would be left out. A param that is a template is missing from `params`."""
    has_body, has_form = (params.get(name, "a template") is not None for name in ("body", "form"))
    if has_body and has_form:
        return "write either `body` or `form`, not both"
    if params.get("method") == "DELETE" and (has_body or has_form or params.get("id_field") is not None):
        return "a DELETE has no body: remove `body`, `form` and `id_field`"
    return None


def _header_problem(params: Mapping[str, Any]) -> str | None:
    headers = params.get("headers")
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if str(name).lower() in ("authorization", "proxy-authorization", "cookie"):
            return (
                f"the header {name} is a secret, which does not belong in a rule: set HTTP_TARGETS_<NAME>_HEADER, "
                "and write `target`"
            )
        text = "" if "{{" in str(value) or "{%" in str(value) else str(value)
        if problem := header_problem(str(name), text):
            return f"the header {str(name)[:50]!r} {problem}"
    return None


def _host_problem(settings: Settings, url: Any) -> str | None:
    try:
        target = httpx.URL(str(url))
        has_host = bool(target.host)
    except (httpx.InvalidURL, ValueError):  # the second one for a wrong international name
        return "invalid URL: check the param `url`"
    return NOT_ALLOWED if has_host and not is_allowed(target, settings) else None


class PostParams(Params):
    """One request to your own service."""

    url: str | None = param(
        None,
        "URL: https, with a host listed in HTTP_ALLOWED_HOSTS. Default: HTTP_URL.",
        example="https://erp.example.com/heppu",
    )
    body: Any = param(
        "{{ event }}", "Body, sent as JSON. Default: the whole event.", example={"kind": "call"}
    )


@connector.action(idempotency=per_event, dedupe_by="url", serialize_by=SerializeBy.NONE, idempotent=True)
def post(sender: Sender, params: PostParams, context: Context) -> Success:
    """Deprecated: the earlier name of `http.request`, without its other params."""
    return request.run(sender, RequestParams(url=params.url, body=params.body), context)  # type: ignore[no-any-return]


@post.check_params
def check_post(settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Find a URL that is missing or not allowed."""
    return check_request(settings, {"target": None, "form": None, **params})
