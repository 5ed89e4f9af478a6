"""Details of conversations in dry runs, which do not ask Heppu for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from bridge.events import Event
from bridge.rules.late import Details, render_late
from bridge.rules.model import PlannedDelivery, Rules


def with_details(
    planned: PlannedDelivery, event: Event, rules: Rules, details: Details, now: datetime
) -> PlannedDelivery:
    """Return a planned delivery as it is once these details have been fetched."""
    if not planned.late:
        return planned
    steps = [step for rule in rules.rules for step in rule.steps]
    action = next(step.action for step in steps if step.use == planned.action)
    rendered = render_late(
        action, planned.params, planned.late, event, details, rules, now, internal=planned.internal
    )
    if rendered.error is not None:
        return replace(planned, params={}, late={}, render_error=rendered.error)
    notes = (*planned.notes, *rendered.left_out)
    return replace(planned, params=rendered.values, late={}, notes=notes)


def with_templates(planned: PlannedDelivery) -> PlannedDelivery:
    """Return a planned delivery with the templates of its late params as their values."""
    if not planned.late:
        return planned
    return replace(planned, params={**planned.params, **planned.late}, late={})


def what_is_read(planned: PlannedDelivery) -> tuple[str, ...]:
    """Return what will fill in the late params of a planned delivery, as a sentence; empty if it has none."""
    if not planned.late:
        return ()
    names = " and ".join(f"`{name}`" for name in planned.late)
    return (f"{names}: filled in before it is sent, with the conversation's details from Heppu",)
