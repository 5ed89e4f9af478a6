"""Details of conversations and results of earlier actions in dry runs, which have neither."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from bridge.events import Event
from bridge.rules.late import DETAILS, RESULTS, Details, preview_results, render_late, result_actions, using
from bridge.rules.model import PlannedDelivery, Rules
from bridge.rules.template_filters import RenderError


def with_details(
    planned: PlannedDelivery,
    event: Event,
    rules: Rules,
    details: Details,
    now: datetime,
    failed: Collection[str] = (),
) -> PlannedDelivery:
    """Return a planned delivery as it is once these details have been fetched, and earlier actions have ended.

    The actions in `failed` have no result.
    """
    if not planned.late:
        return planned
    steps = [step for rule in rules.rules for step in rule.steps]
    action = next(step.action for step in steps if step.use == planned.action)
    with_results = using(RESULTS, planned.late)
    rest = {name: value for name, value in planned.late.items() if name not in with_results}
    internal = planned.internal
    try:
        previewed = preview_results(
            action, with_results, event, details, rules, now, internal=internal, without=failed
        )
        rendered = render_late(
            action,
            planned.params,
            rest,
            event,
            details,
            rules,
            now,
            internal=internal,
            still_late=with_results,
        )
        error = rendered.error
    except RenderError as render_error:
        error = str(render_error)
    if error is not None:
        return replace(planned, params={}, late={}, render_error=error)
    notes = (*planned.notes, *rendered.left_out)
    return replace(planned, params={**rendered.values, **previewed}, late={}, notes=notes)


def with_templates(planned: PlannedDelivery) -> PlannedDelivery:
    """Return a planned delivery with the templates of its late params as their values."""
    if not planned.late:
        return planned
    return replace(planned, params={**planned.params, **planned.late}, late={})


def what_is_read(planned: PlannedDelivery) -> tuple[str, ...]:
    """Return what will fill in the late params of a planned delivery, as a sentence; empty if it has none."""
    if not planned.late:
        return ()
    sources = {DETAILS: "the conversation's details from Heppu", RESULTS: _ids_of(planned)}
    return tuple(
        f"{' and '.join(f'`{name}`' for name in params)}: filled in before it is sent, with {sources[source]}"
        for source in sources
        if (params := using(source, planned.late))
    )


def _ids_of(planned: PlannedDelivery) -> str:
    return " and ".join(f"the ID that {name} returns" for name in sorted(result_actions(planned.late)))
