"""Params that all actions share: the person whom the bridge may create."""

from __future__ import annotations

from typing import Literal

from bridge.connector import ContactQuery, Context, NewContactParams, Properties, param

NewOrganization = Literal["link", "create"]
"""What becomes of a person's company, if Pipedrive has no organization of its name."""


class PersonParams(NewContactParams):
    """Params of an action that concerns a person and may create it."""

    new_contact: Properties = param(
        {},
        "Additional fields of a person that this action creates, by name or key. An existing person is left alone.",
        example={"Plan": "Gold"},
    )
    on_missing: Literal["create", "skip"] = param(
        "create", "If Pipedrive has no such person: `create` one, or `skip` the action.", example="skip"
    )
    organization: NewOrganization = param(
        "link",
        "The company of a person: `link` the organization of this name, or `create` it if there is none.",
        example="create",
    )

    def person_query(self, context: Context) -> ContactQuery:
        """Return the query that finds or creates the person."""
        return self.contact_query(context, create=self.on_missing == "create")
