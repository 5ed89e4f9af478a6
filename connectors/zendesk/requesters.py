"""Users of a Zendesk account, as contact resolution searches and creates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.connector import (
    ContactMatch,
    ContactQuery,
    ContactRefused,
    Context,
    NewContact,
    same_number,
    search_digits,
)
from bridge.errors import DeliveryError, PermanentError

from .account import Account

_MAX_IDENTITIES_READ = 5
"""Users of one search whose further addresses are read."""


class Requesters:
    """The account's users, as a source for `write_for_contact`.

    Zendesk's search also finds users by additional addresses, which the user record does not contain: these are read.
    """

    def __init__(self, account: Account) -> None:
        self._account = account

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return the users with one of these addresses, also an additional one."""
        return [
            match
            for email in emails
            for match in self._matches(
                f'email:"{email}"',
                lambda user, email=email: _text(user, "email").casefold() == email.casefold(),
            )
        ]

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """Return the users with one of these numbers in any spelling: the search compares the last digits."""
        matches: dict[str, ContactMatch] = {}
        for phone in phones:
            for digits in search_digits(phone):
                found = self._matches(
                    f"phone:*{digits}", lambda user, phone=phone: same_number(_text(user, "phone"), phone)
                )
                matches |= {match.id: match for match in found}
        return list(matches.values())

    def create(
        self, queries: Sequence[ContactQuery]
    ) -> list[str | NewContact | ContactRefused | DeliveryError]:
        """Create one user per query. A repeated request finds the user that the first one created."""
        return [self._create(query) for query in queries]

    def _create(self, query: ContactQuery) -> NewContact | ContactRefused:
        user: dict[str, Any] = {"name": query.name or query.email or f"Caller {query.phone}"}
        user["skip_verify_email"] = True
        if query.email:
            user["email"] = query.email
        else:
            # Zendesk identifies a user by email address or external ID, so a repeated request creates no second one.
            user["external_id"] = f"heppu:{query.phone}"
        if query.phone:
            user["phone"] = query.phone
        try:
            return NewContact(
                self._send(f"create user for {query.context.event.id}", user, query.context), kind="user"
            )
        except PermanentError as error:
            if error.code != "phone":
                raise
            if not query.email:
                return ContactRefused({"phone": error.code})
        del user["phone"]
        user_id = self._send(f"create user without number for {query.context.event.id}", user, query.context)
        return NewContact(user_id, refused={"phone": "phone"}, kind="user")

    def _send(self, step: str, user: Mapping[str, Any], context: Context) -> str:
        def send() -> str:
            path = "/api/v2/users/create_or_update"
            return str(self._account.api.write("POST", path, json={"user": user}, holds="user.id", kind=int))

        # A repeated request changes nothing, so no lookup needs to find the user, whom the search does not show yet.
        return str(context.step(step, send, lambda: None))

    def _matches(self, query: str, is_primary: Any) -> list[ContactMatch]:
        users = [user for user in self._account.search_users(query) if user.get("active") is not False]
        matches = []
        for number, user in enumerate(users):
            emails, phones = [_text(user, "email")], [_text(user, "phone")]
            if not is_primary(user) and number < _MAX_IDENTITIES_READ:
                identities = self._account.identities(int(user["id"]))
                emails += [_text(item, "value") for item in identities if item.get("type") == "email"]
                phones += [_text(item, "value") for item in identities if item.get("type") == "phone_number"]
            matches.append(
                ContactMatch(
                    str(user["id"]),
                    emails=[email for email in emails if email],
                    phones=[phone for phone in phones if phone],
                    activity=(_text(user, "updated_at"),),
                    first_name=_text(user, "name"),
                )
            )
        return matches


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""
