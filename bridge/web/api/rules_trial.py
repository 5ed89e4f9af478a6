"""Trials of changed rules: their problems, their plan over stored events, and the forecast of one event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from bridge.web.api.endpoint import ApiError, Call, Resource
from bridge.web.api.records import record
from bridge.web.api.rules import RuleDiagnostic
from bridge.web.query_params import RequiredText, Text, Time, instant
from bridge.web.rules_trial import MAX_TEXT, TrialFailed, all_files, changed_files
from bridge.web.validation import Parameters

TRIALS = Resource("Trials", "Changed rules and single events, tried without storing or sending anything.")
MAX_BODY: Final = 1024 * 1024
"""Bytes of a request with a rules file, whose characters JSON may escape."""
_TRIAL_ERRORS: Final = {409: "another trial is running, or this one took too long"}


def _encodable(value: str) -> str:
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("must be a text without halves of characters")
    return value


RulesText = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_encodable)]
"""The text of a rules file."""


class CheckRules(Parameters):
    """A changed rules file."""

    text: RulesText = Field(description="Text of the file.")
    file: Text | None = Field(
        None, description="Its name, if there are several rules files.", examples=["rules.d/sms.yaml"]
    )


class PlanRules(CheckRules):
    """A changed rules file, and the period whose events it is tried with."""

    since: Time = Field(timedelta(days=7), description="Start of the period.", examples=["7d"])


class ExplainEvent(Parameters):
    """An event to try the rules with."""

    event: RequiredText = Field(description="ID of a stored event, or an event type for its sample.")
    text: RulesText | None = Field(
        None, description="Text of a changed rules file. Default: the active rules."
    )
    file: Text | None = Field(None, description="Name of the changed file, if there are several.")
    phone: Text | None = Field(None, description="Phone number of the contact instead of the event's.")
    at: Time | None = Field(None, description="When the event is routed. Default: now.")


@record()
class RulesCheckResult(TypedDict):
    """The problems of a changed rules file."""

    ok: bool
    """Whether a service would load it."""
    diagnostics: list[RuleDiagnostic]
    rules: int
    hash: str | None


@record()
class RulesTestFailure(TypedDict):
    """A test of the rules that failed."""

    name: str
    line: int
    mismatches: list[str]


@record()
class RulesTests(TypedDict):
    """The results of the tests in the files."""

    run: int
    not_run: int
    """Tests with events from files, and those for which there was no time: `bridge test` runs all."""
    failed: list[RulesTestFailure]


@record()
class RulesTestedResult(RulesCheckResult):
    """The problems of a changed rules file, and the results of its tests."""

    tests: RulesTests | None
    """Null if the file has errors."""


@record()
class RulesPlanResult(RulesCheckResult):
    """The problems of a changed rules file, and the deliveries that would be different."""

    plan: dict[str, Any] | None
    """The plan, as `bridge plan --json` prints it. Null if the file has errors."""


@record()
class RulesForecastResult(RulesCheckResult):
    """The problems of the rules, and what they would do with an event."""

    forecast: dict[str, Any] | None
    """The forecast, as `bridge explain --json` prints it. Null if the file has errors."""


@TRIALS.post("/rules/check", response=RulesTestedResult, errors=_TRIAL_ERRORS, max_body=MAX_BODY)
def check_rules(call: Call, body: CheckRules) -> Any:
    """Check a changed rules file and run its tests. Stores nothing."""
    return {"tests": None} | _try(call, {"mode": "check", "files": _files(call, body.file, body.text)})


@TRIALS.post("/rules/plan", response=RulesPlanResult, errors=_TRIAL_ERRORS, max_body=MAX_BODY)
def plan_rules(call: Call, body: PlanRules) -> Any:
    """Compare a changed rules file with the active rules over stored events. Stores and sends nothing.

    Compares the newest 5,000 events of the period at most, and as many of them as it can in ten seconds.
    """
    rules = call.service.rules.current
    since = instant(body.since, call.database.clock.now())
    request = {"mode": "plan", "baseline": rules.text, "since": since.isoformat() if since else ""}
    return {"plan": None} | _try(call, request | {"files": _files(call, body.file, body.text)})


@TRIALS.post("/rules/explain", response=RulesForecastResult, errors=_TRIAL_ERRORS, max_body=MAX_BODY)
def explain_event(call: Call, body: ExplainEvent) -> Any:
    """Say what the rules would do with an event. Stores and sends nothing."""
    rules = call.service.rules.current
    at = instant(body.at, call.database.clock.now())
    request = {
        "mode": "explain",
        "event": body.event,
        "changes": {"metadata.contactPhone": body.phone} if body.phone else {},
        "at": at.isoformat() if at else None,
        "files": all_files(rules) if body.text is None else _files(call, body.file, body.text),
    }
    return {"forecast": None} | _try(call, request)


def _files(call: Call, name: str | None, text: str) -> list[dict[str, str]]:
    return changed_files(call.service.rules.current, name, text)


def _try(call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
    if call.service.trial is None:
        raise ApiError(409, "this service cannot try rules: use `bridge check`, `plan` and `explain`")
    try:
        return call.service.trial.run(request)
    except TrialFailed as error:
        raise ApiError(409, str(error)) from None
