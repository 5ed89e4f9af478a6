"""Implementation of `bridge retry`, `cancel` and `dismiss`: say what would be done, ask, and do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import typer

from bridge.cli.arguments import parse_time_option
from bridge.cli.db import open_store
from bridge.cli.delivery_commands import current_operator, print_results
from bridge.cli.inspect_commands import addresses_of, check_reason, check_states
from bridge.cli.output import Record, pluralize, print_status, render
from bridge.cli.rule_deliveries import progress
from bridge.settings import Settings, environment
from bridge.store.bulk_actions import BulkPreview, BulkResult, change_all, preview_bulk
from bridge.store.delivery_list import DeliveryFilter
from bridge.store.operator_actions import Action

POLICY_NOTE = "quiet hours, opt-outs and caps are checked again before each message"
_DONE: dict[Action, str] = {
    "retry": "retried", "cancel": "cancelled", "dismiss": "dismissed", "undismiss": "no longer dismissed",
}  # fmt: skip
_DOING: dict[Action, str] = {
    "retry": "Retrying", "cancel": "Cancelling", "dismiss": "Dismissing", "undismiss": "Taking back",
}  # fmt: skip


@dataclass(frozen=True)
class Criteria:
    """The options of a filter, as they were typed."""

    state: Sequence[str] | None
    reason: str | None
    connection: str | None
    rule: str | None
    event_type: str | None
    contact: str | None
    since: str | None
    until: str | None

    @property
    def is_rule_alone(self) -> bool:
        """True if the rule is the only criterion."""
        return [name for name, value in vars(self).items() if value] == ["rule"]

    @property
    def is_empty(self) -> bool:
        """True if the filter has no criterion."""
        return not any(vars(self).values())

    def filter(self, country: str | None) -> DeliveryFilter:
        """Return the filter. Raise BadParameter for a value that is not possible."""
        check_states(self.state)
        check_reason(self.reason)
        return DeliveryFilter(
            states=tuple(self.state or ()),
            reason=self.reason,
            connection=self.connection,
            rule=self.rule,
            event_type=self.event_type,
            contact=addresses_of(self.contact, country),
            since=parse_time_option(self.since, "--since"),
            until=parse_time_option(self.until, "--until"),
        )


def change_deliveries(
    action: Action, ids: Sequence[str] | None, criteria: Criteria, *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Carry out an action on the deliveries with these IDs, or on all that match. Exit with 1 if one is not changed."""
    if bool(ids) != criteria.is_empty:
        raise typer.BadParameter("name deliveries by their IDs, or all that match a filter, such as --rule")
    with open_store(Settings.load(environment())) as database:
        matching = DeliveryFilter(ids=ids) if ids else criteria.filter(database.default_country)
        expected = None
        if dry_run or (not yes and (not ids or len(ids) > 1)):
            preview = preview_bulk(database, action, matching)
            expected = preview.total
            if dry_run:
                render(Record(preview.to_json(), "\n".join(describe(preview))), as_json)
                return
            confirm(preview)
        with progress(_DOING[action], expected or 1) as on_progress:
            result = change_all(
                database, current_operator(), action, matching, expected=expected, on_progress=on_progress
            )
    if ids:
        print_results(result.results, as_json)
    else:
        _print_summary(result, as_json)


def describe(preview: BulkPreview) -> list[str]:
    """Return what an action would do, in lines: the number and kinds, where to, and what is not possible."""
    lines = [
        f"{pluralize(preview.possible, 'delivery')} would be {_DONE[preview.action]}: {preview.effects.text}"
    ]
    if preview.connections:
        lines.append(
            "by connection: " + ", ".join(f"{n:,} {name}" for name, n in preview.connections.items())
        )
    return lines + not_possible(preview)


def not_possible(preview: BulkPreview) -> list[str]:
    """Return the lines about deliveries that are not changed."""
    shown = [
        f"{delivery_id} is not {_DONE[preview.action]}: {problem}"
        for delivery_id, problem in preview.not_possible
    ]
    hidden = sum(preview.obstacles.values()) - len(shown)
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in preview.obstacles.items())
    return [*shown, f"and {hidden:,} more ({kinds})"] if hidden else shown


def confirm(preview: BulkPreview) -> None:
    """Say what an action would do, and ask. Abort if the answer is no."""
    for line in not_possible(preview):
        print_status(line)
    if not preview.possible:
        return
    if preview.action == "retry":
        print_status(f"This would lead to: {preview.effects.text}; {POLICY_NOTE}")
        if preview.rejected:
            print_status(f"The provider rejected {preview.rejected:,} of them: fix the cause first")
    else:
        print_status(f"These are: {preview.effects.text}")
    typer.confirm(
        f"{preview.action.capitalize()} {pluralize(preview.possible, 'delivery')}?", abort=True, err=True
    )


def _print_summary(result: BulkResult, as_json: bool) -> None:
    record = result.to_json()
    lines = [f"{pluralize(result.done, 'delivery')} {_DONE[result.action]}"]
    lines += [
        f"{number:,} not {_DONE[result.action]}: {kind}" for kind, number in record["obstacles"].items()
    ]
    render(Record(record, "\n".join(lines)), as_json)
    if record["not_possible"]:
        raise typer.Exit(1)
