"""Object permissions that the actions need, as `bridge connectors show` lists them and `check_rules` tests them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WRITE_PEOPLE = ("Lead (read, create, edit)", "Contact (read, edit)")
WRITE_TASKS = ("Task (create, edit)", *WRITE_PEOPLE)
WRITE_EVENTS = ("Event (create, edit)", *WRITE_PEOPLE)
ADD_MEMBERS = ("Campaign (read)", "CampaignMember (create)", *WRITE_PEOPLE)
EDIT_MEMBERS = ("Campaign (read)", "CampaignMember (edit)", "Lead (read)", "Contact (read)")
UPDATE_LEADS = ("Lead (read, edit)",)
CREATE_CASES = ("Case (read, create, edit)", "Contact (read)")
CLOSE_CASES = ("Case (read, edit)",)
SET_FLAGS = ("Lead (read, edit)", "Contact (read, edit)")


def read_needs(needs: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return object type -> `read`, `create` and `edit`, as the `needs` of an action list them."""
    parts = (need.removesuffix(")").partition(" (") for need in needs)
    return {object_type: access.split(", ") for object_type, _, access in parts}
