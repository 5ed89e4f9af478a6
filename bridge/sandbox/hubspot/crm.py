"""The objects that a HubSpot account holds, and the rules they keep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.responses import Response

from bridge.sandbox.hubspot.errors import error_body, invalid, invalid_properties, not_found
from bridge.sandbox.hubspot.pipelines import Pipeline
from bridge.sandbox.hubspot.schema import ASSOCIATIONS, ObjectType, iso, searchable_phone
from bridge.sandbox.index import Lookup
from bridge.sandbox.provider import RECORDS_KEPT, Refusal

_VERSIONS_KEPT = 10
_FIRST_ID = 51_001


@dataclass
class CrmObject:
    """One contact, call, note, ...; `versions` are what a lagging search index may still show."""

    id: str
    type: str
    properties: dict[str, str]
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    versions: list[tuple[datetime, dict[str, str]]] = field(default_factory=list)

    @property
    def archived(self) -> bool:
        """Whether it was deleted."""
        return self.archived_at is not None


@dataclass(frozen=True)
class Association:
    """One direction of a link between two objects."""

    from_type: str
    from_id: str
    to_type: str
    to_id: str
    type_id: int
    category: str = "HUBSPOT_DEFINED"


@dataclass
class Crm:
    """All objects of one account."""

    types: dict[str, ObjectType]
    portal_id: int
    pipelines: Mapping[str, Pipeline]
    """The ways that tickets go."""
    owners: set[str]
    objects: dict[str, dict[str, CrmObject]] = field(init=False)
    associations: dict[Association, None] = field(default_factory=dict)
    merged: dict[tuple[str, str], str] = field(default_factory=dict)
    _linked: dict[tuple[str, str], dict[Association, None]] = field(default_factory=dict)
    _unique: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    _searched: dict[tuple[str, str], Lookup] = field(default_factory=lambda: defaultdict(Lookup))
    _next_id: int = _FIRST_ID

    def __post_init__(self) -> None:
        self.objects = {name: {} for name in self.types}

    def type(self, name: str) -> ObjectType:
        """An object type by its plural, singular or id; raises Refusal."""
        for kind in self.types.values():
            if name in (kind.name, kind.singular, kind.type_id):
                return kind
        raise invalid(f"Unable to infer object type from: {name}", objectType=name)

    def live(self, kind: ObjectType) -> list[CrmObject]:
        """The objects of a type that were not deleted, oldest first."""
        return [found for found in self.objects[kind.name].values() if not found.archived]

    def find(self, kind: ObjectType, identifier: str, id_property: str | None = None) -> CrmObject | None:
        """A living object by its id (also one that was merged into it) or by a unique property."""
        if id_property is None or id_property == "hs_object_id":
            while (kind.name, identifier) in self.merged:
                identifier = self.merged[kind.name, identifier]
            found = self.objects[kind.name].get(identifier)
        else:
            known = kind.properties.get(id_property)
            if known is None or not known.unique:
                raise invalid(
                    f"Property '{id_property}' is not a unique identifier property", idProperty=id_property
                )
            holder = self._unique.get((kind.name, id_property), {}).get(known.normal(identifier))
            found = self.objects[kind.name].get(holder or "")
        return None if found is None or found.archived else found

    def get(self, kind: ObjectType, identifier: str, id_property: str | None = None) -> CrmObject:
        """As `find`, but raises the 404."""
        found = self.find(kind, identifier, id_property)
        if found is None:
            raise not_found(identifier)
        return found

    def checked(self, kind: ObjectType, given: Any, *, create: bool) -> dict[str, str]:
        """The properties as they will be kept; raises the refusal that lists all that is wrong."""
        if not isinstance(given, dict):
            raise invalid("Invalid input JSON: properties must be an object of strings")
        for name, value in given.items():
            if not isinstance(value, str):
                raise invalid(
                    f"Invalid input JSON: Cannot deserialize value of property `{name}`: all values are strings",
                    propertyName=name,
                )
        problems = []
        for name, value in given.items():
            known = kind.properties.get(name)
            if known is None:
                found: tuple[str, str] | None = ("PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
            else:
                found = known.problem(value) or self._unknown_reference(kind, name, value)
            if found is not None:
                problems.append({"name": name, "error": found[0], "message": found[1]})
        if problems:
            raise invalid_properties(problems)
        missing = [name for name in kind.required if create and not given.get(name)]
        if missing:
            raise Refusal(
                error_body(
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
        return {name: kind.properties[name].normal(value) for name, value in given.items()}

    def _unknown_reference(self, kind: ObjectType, name: str, value: str) -> tuple[str, str] | None:
        if name == "hubspot_owner_id" and value and value not in self.owners:
            return "INVALID_OWNER_ID", f"Owner {value} does not exist"
        if kind.name == "tickets" and value:
            if name == "hs_pipeline" and value not in self.pipelines:
                return _not_among(value, self.pipelines)
            if name == "hs_pipeline_stage" and self._pipeline_of(value) is None:
                return _not_among(value, (one.id for way in self.pipelines.values() for one in way.stages))
        return None

    def conflict(self, kind: ObjectType, values: Mapping[str, str], own_id: str | None) -> Response | None:
        """The answer when another object already has one of the unique values."""
        for name, value in values.items():
            holder = self._unique.get((kind.name, name), {}).get(value)
            if not value or holder is None or holder == own_id:
                continue
            if (kind.name, name) == ("contacts", "email"):
                return error_body(409, f"Contact already exists. Existing ID: {holder}")
            message = (
                f"Cannot set PropertyValueCoordinates{{portalId={self.portal_id}, objectTypeId={kind.type_id}, "
                f"propertyName={name}, value={value}}} on {own_id or 0}. {holder} already has that value."
            )
            problem = {"name": name, "error": "CONFLICTING_UNIQUE_VALUE", "message": message}
            return invalid_properties([problem]).response
        return None

    def create(
        self, kind: ObjectType, values: dict[str, str], links: Iterable[Association], now: datetime
    ) -> CrmObject:
        """A new object with its associations; `values` are checked; raises the conflict."""
        conflict = self.conflict(kind, values, None)
        if conflict is not None:
            raise Refusal(conflict)
        values = self._as_kept(kind, {}, values, now)
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
        self, kind: ObjectType, found: CrmObject, values: Mapping[str, str], now: datetime
    ) -> CrmObject:
        """Change an object; `values` are checked; raises the conflict."""
        conflict = self.conflict(kind, values, found.id)
        if conflict is not None:
            raise Refusal(conflict)
        self._write(kind, found, self._as_kept(kind, found.properties, values, now), now)
        return found

    def _write(self, kind: ObjectType, found: CrmObject, values: Mapping[str, str], now: datetime) -> None:
        for name, value in values.items():
            if kind.properties[name].unique:
                index = self._unique.setdefault((kind.name, name), {})
                index.pop(found.properties.get(name, ""), None)
                if value:
                    index[value] = found.id
        found.updated_at = now
        properties = found.properties | dict(values)
        properties["hs_object_id"] = found.id
        properties[kind.created] = iso(found.created_at)
        properties[kind.modified] = iso(now)
        if kind.name == "contacts":
            for source, computed in (("phone", "phone"), ("mobilephone", "mobile")):
                digits = searchable_phone(properties.get(source))
                properties[f"hs_searchable_calculated_{computed}_number"] = digits or ""
        found.properties = {name: value for name, value in properties.items() if value != ""}
        self._index(kind, found, now)

    def _index(self, kind: ObjectType, found: CrmObject, now: datetime) -> None:
        """An object is found by the values of all versions that a lagging index may show."""
        for name in _indexed(kind):
            for _, values in found.versions:
                self._searched[kind.name, name].discard(values.get(name, "").lower(), found.id)
        found.versions.append((now, found.properties))
        del found.versions[:-_VERSIONS_KEPT]
        for name in _indexed(kind):
            for _, values in found.versions:
                if name in values:
                    self._searched[kind.name, name].add(values[name].lower(), found.id)

    def holding(self, kind: ObjectType, name: str, values: Iterable[str]) -> list[CrmObject] | None:
        """The objects that hold or held one of `values`; None when only a look at all of them could tell."""
        if name not in _indexed(kind):
            return None
        ids = self._searched[kind.name, name].holders_of_any(value.lower() for value in values)
        return [self.objects[kind.name][found] for found in ids]

    def _pipeline_of(self, stage_id: str) -> Pipeline | None:
        return next((one for one in self.pipelines.values() if one.stage(stage_id)), None)

    def _as_kept(
        self, kind: ObjectType, held: Mapping[str, str], values: Mapping[str, str], now: datetime
    ) -> dict[str, str]:
        """What is written of `values`: a lifecycle stage goes forward only, unless it is cleared before.

        A ticket's stage must be one of its pipeline; the date of its closing is HubSpot's to write.
        """
        after = {**held, **values}
        stages = kind.properties["lifecyclestage"].options if kind.name == "contacts" else ()
        before, wanted = held.get("lifecyclestage"), values.get("lifecyclestage")
        if before and wanted and stages.index(wanted) < stages.index(before):
            return {name: value for name, value in values.items() if name != "lifecyclestage"}
        stage_id = after.get("hs_pipeline_stage", "")
        if kind.name != "tickets" or not stage_id:
            return dict(values)
        pipeline = self.pipelines.get(after.get("hs_pipeline", "")) or self._pipeline_of(stage_id)
        stage = pipeline.stage(stage_id) if pipeline is not None else None
        if pipeline is None or stage is None:
            code, message = _not_among(stage_id, (one.id for one in pipeline.stages) if pipeline else ())
            raise invalid_properties([{"name": "hs_pipeline_stage", "error": code, "message": message}])
        written = {**values, "hs_pipeline": pipeline.id}
        if stage.closed and "closed_date" not in after:
            written["closed_date"] = iso(now)
        return written

    def archive(self, kind: ObjectType, found: CrmObject, now: datetime) -> None:
        """Delete an object; its unique values are free again."""
        found.archived_at = now
        for (type_name, name), index in self._unique.items():
            if type_name == kind.name and index.get(found.properties.get(name, "")) == found.id:
                del index[found.properties[name]]
        for link in list(self._linked.get((kind.name, found.id), {})):
            self.dissociate(link)

    def merge(self, kind: ObjectType, winner: CrmObject, other: CrmObject, now: datetime) -> CrmObject:
        """Make one object of two; the id of the other still leads to it."""
        links = list(self._linked.get((kind.name, other.id), {}))
        self.archive(kind, other, now)
        fill = {
            name: value
            for name, value in other.properties.items()
            if name not in winner.properties and not kind.properties[name].read_only
        }
        self.merged[kind.name, other.id] = winner.id
        self._write(kind, winner, fill, now)
        for link in links:
            self.associate(
                Association(kind.name, winner.id, link.to_type, link.to_id, link.type_id, link.category)
            )
        return winner

    def spec(self, kind: ObjectType, given: Any) -> list[Association]:
        """The associations of a create request, without the new object's id; raises Refusal."""
        links = []
        if not isinstance(given, list):
            raise invalid("Invalid input JSON: associations must be a list")
        for item in given:
            to = item.get("to") if isinstance(item, dict) else None
            types = item.get("types") if isinstance(item, dict) else None
            if (
                not isinstance(to, dict)
                or not isinstance(to.get("id"), (str, int))
                or not isinstance(types, list)
            ):
                raise invalid("Invalid input JSON: an association needs to.id and types")
            for one in types:
                links.append(self._link(kind, str(to["id"]), one))
        return links

    def _link(self, kind: ObjectType, to_id: str, spec: Any) -> Association:
        if not isinstance(spec, dict) or type(spec.get("associationTypeId")) is not int:
            raise invalid("Invalid input JSON: associationTypeId must be a number")
        if spec.get("associationCategory") != "HUBSPOT_DEFINED":
            raise invalid(f"invalid association category {spec.get('associationCategory')}")
        for (from_type, to_type), type_id in ASSOCIATIONS.items():
            if from_type == kind.name and type_id == spec["associationTypeId"]:
                target = self.find(self.types[to_type], to_id)
                if target is None:
                    raise invalid(f"Object {to_type} with id {to_id} does not exist", toObjectId=to_id)
                return Association(kind.name, "", to_type, target.id, type_id)
        raise invalid(f"association type id {spec['associationTypeId']} doesn't exist from {kind.name}")

    def default_link(
        self, from_type: ObjectType, from_id: str, to_type: ObjectType, to_id: str
    ) -> Association:
        """Link two objects the way HubSpot does without a label; raises Refusal."""
        type_id = ASSOCIATIONS.get((from_type.name, to_type.name))
        if type_id is None:
            raise invalid(f"No default association exists from {from_type.name} to {to_type.name}")
        start, end = self.get(from_type, from_id), self.get(to_type, to_id)
        link = Association(from_type.name, start.id, to_type.name, end.id, type_id)
        self.associate(link)
        return link

    def associate(self, link: Association) -> None:
        """Keep a link and its other direction; once is enough."""
        for one in (link, _reverse(link)):
            self.associations[one] = None
            self._linked.setdefault((one.from_type, one.from_id), {})[one] = None

    def dissociate(self, link: Association) -> None:
        """Drop a link and its other direction."""
        for one in (link, _reverse(link)):
            self.associations.pop(one, None)
            self._linked.get((one.from_type, one.from_id), {}).pop(one, None)

    def linked(self, kind: ObjectType, found: CrmObject, to_type: ObjectType) -> list[Association]:
        """An object's links to one type, oldest first."""
        return [link for link in self._linked.get((kind.name, found.id), {}) if link.to_type == to_type.name]

    def room(self) -> bool:
        """Whether another object may be kept."""
        return sum(map(len, self.objects.values())) < RECORDS_KEPT


def _not_among(value: str, allowed: Iterable[str]) -> tuple[str, str]:
    return "INVALID_OPTION", f"{value} was not one of the allowed options: [{', '.join(allowed)}]"


def _indexed(kind: ObjectType) -> list[str]:
    return [name for name, known in kind.properties.items() if known.unique or name in kind.indexed]


def _reverse(link: Association) -> Association:
    return Association(
        link.to_type,
        link.to_id,
        link.from_type,
        link.from_id,
        ASSOCIATIONS[link.to_type, link.from_type],
        link.category,
    )
