"""What an administrator of the account has set up: groups, brands, forms, fields and statuses."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]
STATUSES = ("new", "open", "pending", "hold", "solved", "closed")
PRIORITIES = ("low", "normal", "high", "urgent")
TYPES = ("problem", "incident", "question", "task")
AGENT_ID, ADA_ID = 9001, 9002


def default_setup() -> dict[str, list[Record]]:
    """Return the setup of a new account, by the name of the list in Zendesk's API."""
    return {
        "groups": [_named(301, "Support", default=True), _named(302, "Billing"), _named(303, "Workshop")],
        "brands": [
            _named(401, "Harbor Light", default=True, active=True),
            _named(402, "Harbor Bikes", active=True),
        ],
        "ticket_forms": [
            _named(501, "Default form", default=True, active=True),
            _named(502, "Repairs", active=True),
        ],
        "ticket_fields": [
            _field(600, "Subject", "subject") | {"removable": False},
            _field(601, "Order number", "text"),
            _field(602, "Product area", "tagger", ("City bike", "area_city"), ("E-bike", "area_ebike")),
            _field(603, "Callback wanted", "checkbox"),
            _field(604, "Rating", "integer"),
            _field(605, "Topics", "multiselect", ("Brakes", "topic_brakes"), ("Gears", "topic_gears")),
            _field(606, "Old field", "text") | {"active": False},
            _field(607, "Callback date", "date"),
        ],
        "custom_statuses": [
            *(_status(701 + number, name, name.title()) for number, name in enumerate(STATUSES[:5])),
            _status(711, "hold", "Waiting for parts", default=False),
            _status(712, "open", "Old status", default=False) | {"active": False},
        ],
    }


def default_agents(created_at: str) -> dict[int, Record]:
    """Return the agents of a new account by ID."""
    agents = [
        new_user(AGENT_ID, created_at, name="Bridge", email="bridge@harbourlight.example", role="admin"),
        new_user(ADA_ID, created_at, name="Ada Reyes", email="ada@harbourlight.example", role="agent"),
    ]
    return {agent["id"]: agent for agent in agents}


def new_user(user_id: int, created_at: str, **values: Any) -> Record:
    """Return a user record. `emails` and `phones` are all identities, of which `email` and `phone` are the primary."""
    user = {
        "id": user_id, "name": "", "email": None, "phone": None, "role": "end-user", "external_id": None,
        "suspended": False, "active": True, "created_at": created_at, "updated_at": created_at, **values,
    }  # fmt: skip
    user.setdefault("emails", [user["email"]] if user["email"] else [])
    user.setdefault("phones", [user["phone"]] if user["phone"] else [])
    return user


def _named(record_id: int, name: str, **more: Any) -> Record:
    return {"id": record_id, "name": name, "default": False, "deleted": False, **more}


def _field(field_id: int, title: str, kind: str, *options: tuple[str, str]) -> Record:
    field: Record = {"id": field_id, "title": title, "type": kind, "active": True, "removable": True}
    if options:
        field["custom_field_options"] = [{"name": name, "value": value} for name, value in options]
    return field


def _status(status_id: int, category: str, label: str, *, default: bool = True) -> Record:
    return {
        "id": status_id,
        "status_category": category,
        "agent_label": label,
        "active": True,
        "default": default,
    }
