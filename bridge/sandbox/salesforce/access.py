"""What the integration user may not do in an org, and what nobody may do at the moment."""

from __future__ import annotations

from dataclasses import dataclass, field

from bridge.sandbox.salesforce.errors import RecordError


@dataclass
class Access:
    """Permissions, locks, storage and maintenance of an org. A new org allows everything."""

    denied: dict[str, set[str]] = field(default_factory=dict)
    """Object types, and what the integration user may not do with their records: `read`, `create`, `edit`."""
    read_only: set[str] = field(default_factory=set)
    """Records that the integration user can read and refer to, but not edit."""
    unshared: set[str] = field(default_factory=set)
    """Records that the integration user can neither edit nor refer to."""
    approval_locks: set[str] = field(default_factory=set)
    """Records that nobody may edit, because an approval process has locked them."""
    may_customize: bool = True
    """Whether the integration user may create fields."""
    storage_full: bool = False
    """Whether the org's data storage is used up."""
    in_maintenance: bool = False
    """Whether the org is read-only."""

    def allows(self, object_type: str, operation: str) -> bool:
        """Return whether the integration user may `read`, `create` or `edit` records of this type."""
        return operation not in self.denied.get(object_type, ())

    def check_create(self, object_type: str) -> None:
        """Raise RecordError if no record of this type can be created."""
        self._check(object_type, "create", "inserted")
        if self.storage_full:
            raise RecordError("STORAGE_LIMIT_EXCEEDED", "storage limit exceeded")

    def check_edit(self, object_type: str, record_id: str) -> None:
        """Raise RecordError if this record cannot be changed."""
        self._check(object_type, "edit", "updated")
        if record_id in self.approval_locks:
            raise RecordError("ENTITY_IS_LOCKED", "the entity is locked for editing")
        if record_id in self.read_only | self.unshared:
            raise RecordError(
                "INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id", status=403
            )

    def check_reference(self, field_name: str, record_id: str) -> None:
        """Raise RecordError if a field must not refer to this record."""
        if record_id in self.unshared:
            raise RecordError(
                "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
                f"insufficient access rights on cross-reference id: {record_id}",
                [field_name],
                status=403,
            )

    def _check(self, object_type: str, operation: str, participle: str) -> None:
        if self.in_maintenance:
            raise RecordError("INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "", status=503)
        if not self.allows(object_type, "read"):
            raise RecordError("INVALID_TYPE", f"sObject type '{object_type}' is not supported.")
        if not self.allows(object_type, operation):
            raise RecordError(
                "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", f"entity type cannot be {participle}: {object_type}"
            )
