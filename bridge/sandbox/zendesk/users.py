"""Users of the mock Zendesk: search, identities, and creation."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import MAX_RECORDS, Handler, MockProvider, ProviderError, ProviderRequest
from bridge.sandbox.zendesk.errors import error_response, invalid, not_found, too_many
from bridge.sandbox.zendesk.setup import Record, new_user

_CONDITION = re.compile(r'(\w+):(?:"([^"]*)"|(\S+))')
_PRIVATE = ("emails", "phones")


class UserApi(MockProvider):
    """The endpoints of users. Search sees a user only after the lag of its index."""

    users: dict[int, Record]
    limits_user_writes: bool
    page_size: int

    def user_routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the routes."""
        return [
            ("GET", "/api/v2/users/me", self._me),
            ("GET", "/api/v2/users/search", self._search),
            ("POST", "/api/v2/users/create_or_update", self._create_or_update),
            ("GET", "/api/v2/users/{id}", self._show),
            ("GET", "/api/v2/users/{id}/identities", self._identities),
        ]

    def reset_users(self) -> None:
        """Forget the writes that count against the limit."""
        self._user_writes: deque[datetime] = deque()

    def timestamp(self) -> str:
        """Return the time in Zendesk's form."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def next_id(self) -> int:
        """Return the ID of a new user."""
        return max(self.users, default=9000) + 1

    def acting_user(self) -> Record:
        """Return the agent as whom the bridge acts."""
        raise NotImplementedError

    def page(self, request: ProviderRequest, name: str, records: Sequence[Any]) -> Response:
        """Return one page of a list, by cursor with `page[size]`, else by `page` and `per_page`."""
        if "page[size]" in request.query:
            size = min(int(request.query["page[size]"]), self.page_size)
            start = int(request.query.get("page[after]", "0"))
            more = start + size < len(records)
            return JSONResponse(
                {
                    name: records[start : start + size],
                    "meta": {"has_more": more, "after_cursor": str(min(start + size, len(records)))},
                    "links": {"next": None},
                }
            )
        size = min(int(request.query.get("per_page", "100")), self.page_size)
        number = int(request.query.get("page", "1"))
        rest = records[(number - 1) * size :]
        following = None
        if len(rest) > size:
            query = request.query.multi_items()
            kept = [(key, value) for key, value in query if key != "page"]
            text = "&".join(f"{key}={value}" for key, value in [*kept, ("page", str(number + 1))])
            host = request.headers.get("host", "")
            following = f"http://{host}{request.prefix}{request.path}?{text}"
        return JSONResponse({name: rest[:size], "next_page": following, "count": len(records)})

    def _me(self, request: ProviderRequest) -> Response:
        del request
        return JSONResponse({"user": _shown(self.acting_user())})

    def _show(self, request: ProviderRequest) -> Response:
        return JSONResponse({"user": _shown(self._user(request))})

    def _identities(self, request: ProviderRequest) -> Response:
        user = self._user(request)
        identities = [
            {"id": number, "type": kind, "value": value, "primary": value in (user["email"], user["phone"])}
            for number, (kind, value) in enumerate(
                [("email", value) for value in user["emails"]]
                + [("phone_number", value) for value in user["phones"]]
            )
        ]
        return self.page(request, "identities", identities)

    def _user(self, request: ProviderRequest) -> Record:
        user_id = request.path_params["id"]
        if not user_id.isdecimal() or int(user_id) not in self.users:
            raise not_found()
        return self.users[int(user_id)]

    def _search(self, request: ProviderRequest) -> Response:
        query = request.query.get("query", "")
        conditions = [(name, quoted or plain) for name, quoted, plain in _CONDITION.findall(query)]
        if not conditions or _CONDITION.sub("", query).strip():
            return error_response(422, "Invalid search: write conditions such as email:a@b.example")
        latest = self.now() - timedelta(seconds=self.faults.lag(self.name))
        found = [
            _shown(user)
            for user in self.users.values()
            if user["active"]
            and datetime.fromisoformat(user["updated_at"]) <= latest
            and all(_matches(user, name, value) for name, value in conditions)
        ]
        return self.page(request, "users", found)

    def _create_or_update(self, request: ProviderRequest) -> Response:
        try:
            values = request.json()["user"]
        except (ValueError, KeyError, TypeError):
            raise ProviderError(error_response(400, "Parameter user is required")) from None
        existing = self._identified_by(values)
        self._limit_user_writes()
        if existing is None:
            if len(self.users) >= MAX_RECORDS:
                raise self.storage_full_error()
            if not str(values.get("name") or "").strip():
                raise invalid("name", "Name: is too short (minimum one character)", "BlankValue")
        phone, email = values.get("phone"), values.get("email")
        if phone is not None and not re.fullmatch(r"\+\d{7,15}", str(phone)):
            raise invalid("phone", "Phone: is invalid", "InvalidFormat")
        if email is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", str(email)):
            raise invalid("email", "Email: is not properly formatted", "InvalidValue")
        known = {
            key: values[key] for key in ("name", "email", "phone", "role", "external_id") if values.get(key)
        }
        if existing is None:
            user = new_user(self.next_id(), self.timestamp(), **known)
            self.users[user["id"]] = user
            return JSONResponse({"user": _shown(user)}, 201)
        existing.update(known, updated_at=self.timestamp())
        return JSONResponse({"user": _shown(existing)}, 200)

    def _identified_by(self, values: Record) -> Record | None:
        email, external_id = values.get("email"), values.get("external_id")
        return next(
            (
                user
                for user in self.users.values()
                if user["active"]
                and (
                    (email and email.casefold() in map(str.casefold, user["emails"]))
                    or (external_id and user["external_id"] == external_id)
                )
            ),
            None,
        )

    def _limit_user_writes(self) -> None:
        now = self.now()
        if (
            self.limits_user_writes
            and self._user_writes
            and now - self._user_writes[-1] < timedelta(seconds=1)
        ):
            raise too_many(1, 100, "Number of allowed API requests per second exceeded")
        self._user_writes.append(now)


def _shown(user: Record) -> Record:
    return {key: value for key, value in user.items() if key not in _PRIVATE}


def _matches(user: Record, name: str, value: str) -> bool:
    if name == "email":
        return value.casefold() in map(str.casefold, user["emails"])
    if name == "phone":
        digits = re.sub(r"\D", "", value)
        numbers = [re.sub(r"\D", "", phone) for phone in user["phones"]]
        return any(
            number.endswith(digits) if value.startswith("*") else number == digits for number in numbers
        )
    if name == "role":
        return bool(user["role"] == value)
    return False
