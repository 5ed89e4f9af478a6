"""The CRM objects of a HubSpot account, and the constraints on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from starlette.responses import Response

from bridge.sandbox.hubspot.associations import ASSOCIATIONS, Association
from bridge.sandbox.hubspot.errors import error_response, invalid, invalid_properties, not_found
from bridge.sandbox.hubspot.lists import RecordList
from bridge.sandbox.hubspot.owners import Owner
from bridge.sandbox.hubspot.pipelines import PROPERTIES as PIPELINE_PROPERTIES
from bridge.sandbox.hubspot.pipelines import Pipeline, pipeline_of_stage
from bridge.sandbox.hubspot.schema import (
    DISPOSITIONS,
    ObjectType,
    format_timestamp,
    searchable_phone,
)
from bridge.sandbox.index import ValueIndex
from bridge.sandbox.provider import MAX_RECORDS, ProviderError

_MAX_VERSIONS = 10
_FIRST_ID = 51_001


@dataclass
class CrmObject:
    """A contact, call, note or other object. A lagging search index may still show one of its `versions`."""

    id: str
    type: str
    properties: dict[str, str]
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    versions: list[tuple[datetime, dict[str, str]]] = field(default_factory=list)

    @property
    def archived(self) -> bool:
        """True if the object was deleted."""
        return self.archived_at is not None


@dataclass
class Crm:
    """All objects of one account."""

    types: dict[str, ObjectType]
    portal_id: int
    pipelines: Mapping[str, Mapping[str, Pipeline]]
    """Pipelines by object type and ID."""
    owners: dict[str, Owner]
    refused_emails: set[str] = field(default_factory=set)
    """Addresses that are well-formed, but that HubSpot calls invalid."""
    dispositions: dict[str, str] = field(default_factory=lambda: dict(DISPOSITIONS))
    """ID -> label of the account's call outcomes."""
    required_by_admin: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Object type -> properties that a rule of the account requires of a new record."""
    admin_rules_apply: bool = False
    """Whether the API version of the current request applies these rules."""
    objects: dict[str, dict[str, CrmObject]] = field(init=False)
    associations: dict[Association, None] = field(default_factory=dict)
    merged: dict[tuple[str, str], str] = field(default_factory=dict)
    lists: dict[str, RecordList] = field(default_factory=dict)
    """Lists by ID."""
    unsubscribed: set[str] = field(default_factory=set)
    """Email addresses that are unsubscribed from all email."""
    _links_by_object: dict[tuple[str, str], dict[Association, None]] = field(default_factory=dict)
    _unique_values: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    _additional_emails: dict[str, str] = field(default_factory=dict)
    """Additional email address -> ID of its contact. A new contact cannot have it, but a read by email misses it."""
    _indexes: dict[tuple[str, str], ValueIndex] = field(default_factory=lambda: defaultdict(ValueIndex))
    _next_id: int = _FIRST_ID

    def __post_init__(self) -> None:
        self.objects = {name: {} for name in self.types}

    def add_disposition(self, outcome_id: str, label: str) -> None:
        """Add a call outcome, as an administrator would."""
        self.dispositions[outcome_id] = label
        properties = self.types["calls"].properties
        properties["hs_call_disposition"] = replace(
            properties["hs_call_disposition"], options=tuple(self.dispositions)
        )

    def type(self, name: str) -> ObjectType:
        """Return an object type by its plural name, singular name or ID. Raise ProviderError if there is none."""
        for kind in self.types.values():
            if name in (kind.name, kind.singular, kind.type_id):
                return kind
        raise invalid(f"Unable to infer object type from: {name}", objectType=name)

    def active_objects(self, kind: ObjectType) -> list[CrmObject]:
        """Return the objects of a type that were not deleted, oldest first."""
        return [item for item in self.objects[kind.name].values() if not item.archived]

    def find(self, kind: ObjectType, identifier: str, id_property: str | None = None) -> CrmObject | None:
        """Return an active object by its ID (or one merged into it) or by a unique property."""
        if id_property is None or id_property == "hs_object_id":
            while (kind.name, identifier) in self.merged:
                identifier = self.merged[kind.name, identifier]
            item = self.objects[kind.name].get(identifier)
        else:
            definition = kind.properties.get(id_property)
            if definition is None or not definition.unique:
                raise invalid(
                    f"Property '{id_property}' is not a unique identifier property", idProperty=id_property
                )
            holder_id = self._unique_values.get((kind.name, id_property), {}).get(
                definition.normalize(identifier)
            )
            item = self.objects[kind.name].get(holder_id or "")
        return None if item is None or item.archived else item

    def get(self, kind: ObjectType, identifier: str, id_property: str | None = None) -> CrmObject:
        """Return the object as `find` does, but raise the 404 error if there is none."""
        item = self.find(kind, identifier, id_property)
        if item is None:
            raise not_found(identifier)
        return item

    def validate_properties(self, kind: ObjectType, submitted: Any, *, create: bool) -> dict[str, str]:
        """Return the properties as they will be stored. Raise an error that lists all invalid properties."""
        if not isinstance(submitted, dict):
            raise invalid("Invalid input JSON: properties must be an object of strings")
        for name, value in submitted.items():
            if not isinstance(value, str):
                raise invalid(
                    f"Invalid input JSON: Cannot deserialize value of property `{name}`: all values are strings",
                    propertyName=name,
                )
        errors = []
        for name, value in submitted.items():
            definition = kind.properties.get(name)
            if definition is None:
                error: tuple[str, str] | None = ("PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
            else:
                error = definition.validation_error(value) or self._reference_error(kind, name, value)
            if error is not None:
                errors.append({"name": name, "error": error[0], "message": error[1]})
        for name in self.required_by_admin.get(kind.name, ()) if create and self.admin_rules_apply else ():
            if not submitted.get(name):
                message = f"Property {name} is required by a validation rule of this account"
                errors.append({"name": name, "error": "REQUIRED_FIELD", "message": message})
        if errors:
            raise invalid_properties(errors)
        missing = [name for name in kind.required if create and not submitted.get(name)]
        if missing:
            raise ProviderError(
                error_response(
                    400,
                    f"Error creating {kind.singular.upper()}. Some required properties were not set.",
                    errors=[
                        {
                            "message": f"Error creating {kind.singular.upper()}.",
                            "code": "MISSING_REQUIRED_PROPERTY",
                        }
                    ],
                    context={"properties": missing},
                )
            )
        return {name: kind.properties[name].normalize(value) for name, value in submitted.items()}

    def _reference_error(self, kind: ObjectType, name: str, value: str) -> tuple[str, str] | None:
        if (kind.name, name) == ("contacts", "email") and value.lower() in self.refused_emails:
            return "INVALID_EMAIL", f"Email address {value} is invalid"
        if name == "hubspot_owner_id" and value:
            owner = self.owners.get(value)
            if owner is None or owner.archived:
                return "INVALID_OWNER_ID", f"Owner {value} does not exist or is not active"
        if kind.name in PIPELINE_PROPERTIES and value:
            pipelines = self.pipelines[kind.name]
            of_pipeline, of_stage = PIPELINE_PROPERTIES[kind.name]
            if name == of_pipeline and value not in pipelines:
                return _invalid_option(value, pipelines)
            if name == of_stage and pipeline_of_stage(pipelines, value) is None:
                stages = (stage for pipeline in pipelines.values() for stage in pipeline.stages)
                return _invalid_option(value, (stage.id for stage in stages))
        return None

    def conflict(self, kind: ObjectType, values: Mapping[str, str], object_id: str | None) -> Response | None:
        """Return the error response if another object already has one of the unique values."""
        for name, value in values.items():
            holder_id = self._unique_values.get((kind.name, name), {}).get(value)
            if (kind.name, name) == ("contacts", "email"):
                holder_id = holder_id or self._additional_emails.get(value)
            if not value or holder_id is None or holder_id == object_id:
                continue
            if (kind.name, name) == ("contacts", "email"):
                return error_response(409, f"Contact already exists. Existing ID: {holder_id}")
            message = (
                f"Cannot set PropertyValueCoordinates{{portalId={self.portal_id}, objectTypeId={kind.type_id}, "
                f"propertyName={name}, value={value}}} on {object_id or 0}. {holder_id} already has that value."
            )
            error = {"name": name, "error": "CONFLICTING_UNIQUE_VALUE", "message": message}
            return invalid_properties([error]).response
        return None

    def create(
        self, kind: ObjectType, values: dict[str, str], links: Iterable[Association], now: datetime
    ) -> CrmObject:
        """Create an object with its associations from validated values. Raise ProviderError on a conflict."""
        conflict = self.conflict(kind, values, None)
        if conflict is not None:
            raise ProviderError(conflict)
        values = self._effective_values(kind, {}, values, now)
        new = CrmObject(str(self._next_id), kind.name, {}, now, now)
        self._next_id += 1
        self.objects[kind.name][new.id] = new
        self._write(kind, new, values, now)
        for link in links:
            self.associate(
                Association(kind.name, new.id, link.to_type, link.to_id, link.type_id, link.category)
            )
        return new

    def update(
        self, kind: ObjectType, item: CrmObject, values: Mapping[str, str], now: datetime
    ) -> CrmObject:
        """Update an object with validated values. Raise ProviderError on a conflict."""
        conflict = self.conflict(kind, values, item.id)
        if conflict is not None:
            raise ProviderError(conflict)
        self._write(kind, item, self._effective_values(kind, item.properties, values, now), now)
        return item

    def unsubscribe(self, email: str, now: datetime) -> None:
        """Unsubscribe an address from all email, whether or not a contact has it."""
        self.unsubscribed.add(email)
        contacts = self.types["contacts"]
        if (contact := self.find(contacts, email, "email")) is not None:
            self._write(contacts, contact, {}, now)

    def _write(self, kind: ObjectType, item: CrmObject, values: Mapping[str, str], now: datetime) -> None:
        for name, value in values.items():
            if kind.properties[name].unique:
                index = self._unique_values.setdefault((kind.name, name), {})
                index.pop(item.properties.get(name, ""), None)
                if value:
                    index[value] = item.id
        if kind.name == "contacts" and "hs_additional_emails" in values:
            for address in additional_emails(item.properties):
                self._additional_emails.pop(address, None)
            self._additional_emails |= dict.fromkeys(additional_emails(values), item.id)
        item.updated_at = now
        properties = item.properties | dict(values)
        properties["hs_object_id"] = item.id
        properties[kind.created_property] = format_timestamp(item.created_at)
        properties[kind.modified_property] = format_timestamp(now)
        if kind.name == "deals":
            stage = self.pipelines["deals"][properties["pipeline"]].stage(properties["dealstage"])
            properties["hs_is_closed"] = str(stage is not None and stage.closed).lower()
        if kind.name == "contacts":
            if properties.get("email") in self.unsubscribed:
                properties["hs_email_optout"] = "true"
            for source, computed in (("phone", "phone"), ("mobilephone", "mobile")):
                digits = searchable_phone(properties.get(source))
                properties[f"hs_searchable_calculated_{computed}_number"] = digits or ""
        item.properties = {name: value for name, value in properties.items() if value != ""}
        self._index(kind, item, now)

    def _index(self, kind: ObjectType, item: CrmObject, now: datetime) -> None:
        """Index an object by the values of every version that a lagging search may show."""
        for name in _indexed_properties(kind):
            for _, values in item.versions:
                self._indexes[kind.name, name].discard(values.get(name, "").lower(), item.id)
        item.versions.append((now, item.properties))
        del item.versions[:-_MAX_VERSIONS]
        for name in _indexed_properties(kind):
            for _, values in item.versions:
                if name in values:
                    self._indexes[kind.name, name].add(values[name].lower(), item.id)

    def find_indexed(self, kind: ObjectType, name: str, values: Iterable[str]) -> list[CrmObject] | None:
        """Return the objects that have or had one of `values`, or None if the property has no index."""
        if name not in _indexed_properties(kind):
            return None
        ids = self._indexes[kind.name, name].ids_for_any(value.lower() for value in values)
        return [self.objects[kind.name][object_id] for object_id in ids]

    def _effective_values(
        self, kind: ObjectType, current: Mapping[str, str], values: Mapping[str, str], now: datetime
    ) -> dict[str, str]:
        """Return the values that HubSpot stores.

        HubSpot ignores an earlier lifecycle stage, unless the stage is cleared first. The stage of a ticket or deal
        must belong to its pipeline, and HubSpot sets the date of closing.
        """
        merged = {**current, **values}
        stages = kind.properties["lifecyclestage"].options if kind.name == "contacts" else ()
        previous, requested = current.get("lifecyclestage"), values.get("lifecyclestage")
        if previous and requested and stages.index(requested) < stages.index(previous):
            return {name: value for name, value in values.items() if name != "lifecyclestage"}
        if kind.name not in PIPELINE_PROPERTIES:
            return dict(values)
        of_pipeline, of_stage = PIPELINE_PROPERTIES[kind.name]
        stage_id, pipelines = merged.get(of_stage, ""), self.pipelines[kind.name]
        if not stage_id:
            return dict(values)
        pipeline = pipelines.get(merged.get(of_pipeline, "")) or pipeline_of_stage(pipelines, stage_id)
        stage = pipeline.stage(stage_id) if pipeline is not None else None
        if pipeline is None or stage is None:
            allowed = [option.id for option in pipeline.stages] if pipeline is not None else []
            code, message = _invalid_option(stage_id, allowed)
            raise invalid_properties([{"name": of_stage, "error": code, "message": message}])
        effective = {**values, of_pipeline: pipeline.id}
        closing_date = "closed_date" if kind.name == "tickets" else "closedate"
        if stage.closed and closing_date not in merged:
            effective[closing_date] = format_timestamp(now)
        return effective

    def archive(self, kind: ObjectType, item: CrmObject, now: datetime) -> None:
        """Delete an object and release its unique values."""
        item.archived_at = now
        for (type_name, name), index in self._unique_values.items():
            if type_name == kind.name and index.get(item.properties.get(name, "")) == item.id:
                del index[item.properties[name]]
        if kind.name == "contacts":
            for address in additional_emails(item.properties):
                self._additional_emails.pop(address, None)
        for link in list(self._links_by_object.get((kind.name, item.id), {})):
            self.dissociate(link)

    def merge(self, kind: ObjectType, winner: CrmObject, other: CrmObject, now: datetime) -> CrmObject:
        """Merge two objects. The ID of the other one then resolves to the winner, which keeps both email addresses."""
        links = list(self._links_by_object.get((kind.name, other.id), {}))
        self.archive(kind, other, now)
        missing_values = {
            name: value
            for name, value in other.properties.items()
            if name not in winner.properties and not kind.properties[name].read_only
        }
        if kind.name == "contacts" and "email" in winner.properties:
            addresses = [
                *additional_emails(winner.properties),
                *(value for value in (other.properties.get("email"),) if value),
                *additional_emails(other.properties),
            ]
            missing_values["hs_additional_emails"] = ";".join(dict.fromkeys(addresses))
        self.merged[kind.name, other.id] = winner.id
        self._write(kind, winner, missing_values, now)
        for link in links:
            self.associate(
                Association(kind.name, winner.id, link.to_type, link.to_id, link.type_id, link.category)
            )
        return winner

    def find_id(self, type_name: str, identifier: str) -> str | None:
        """Return the current ID of an active object, None if there is none."""
        item = self.find(self.types[type_name], identifier)
        return item.id if item is not None else None

    def associate_default(
        self, from_type: ObjectType, from_id: str, to_type: ObjectType, to_id: str
    ) -> Association:
        """Associate two objects with HubSpot's default, unlabeled type. Raise ProviderError if there is none."""
        type_id = ASSOCIATIONS.get((from_type.name, to_type.name))
        if type_id is None:
            raise invalid(f"No default association exists from {from_type.name} to {to_type.name}")
        start, end = self.get(from_type, from_id), self.get(to_type, to_id)
        link = Association(from_type.name, start.id, to_type.name, end.id, type_id)
        self.associate(link)
        return link

    def associate(self, link: Association) -> None:
        """Store a link in both directions. This is idempotent."""
        for direction in (link, link.reverse()):
            self.associations[direction] = None
            self._links_by_object.setdefault((direction.from_type, direction.from_id), {})[direction] = None
            if (direction.from_type, direction.to_type) == ("contacts", "companies"):
                self.set_primary_company(direction.from_id, direction.to_id, replace_other=False)

    def set_primary_company(self, contact_id: str, company_id: str, *, replace_other: bool = True) -> None:
        """Make a company the primary one of a contact. The first one becomes it by itself."""
        contact = self.objects["contacts"][contact_id]
        if replace_other or "associatedcompanyid" not in contact.properties:
            contact.properties = contact.properties | {"associatedcompanyid": company_id}

    def dissociate(self, link: Association) -> None:
        """Remove a link in both directions."""
        for direction in (link, link.reverse()):
            self.associations.pop(direction, None)
            self._links_by_object.get((direction.from_type, direction.from_id), {}).pop(direction, None)
            contact = self.objects["contacts"].get(direction.from_id)
            if contact and contact.properties.get("associatedcompanyid") == direction.to_id:
                del contact.properties["associatedcompanyid"]

    def links_of(self, kind: ObjectType, item: CrmObject, to_type: ObjectType) -> list[Association]:
        """Return an object's links to one type, oldest first."""
        return [
            link
            for link in self._links_by_object.get((kind.name, item.id), {})
            if link.to_type == to_type.name
        ]

    def has_room(self) -> bool:
        """Return whether the sandbox can store another object."""
        return sum(map(len, self.objects.values())) < MAX_RECORDS


def additional_emails(properties: Mapping[str, str]) -> list[str]:
    """Return a contact's email addresses besides the primary one."""
    return [address for address in properties.get("hs_additional_emails", "").lower().split(";") if address]


def _invalid_option(value: str, allowed: Iterable[str]) -> tuple[str, str]:
    return "INVALID_OPTION", f"{value} was not one of the allowed options: [{', '.join(allowed)}]"


def _indexed_properties(kind: ObjectType) -> list[str]:
    return [name for name, definition in kind.properties.items() if definition.unique or name in kind.indexed]
