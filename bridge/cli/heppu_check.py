"""Check of the webhooks at Heppu for `check --online`: compares them with this service and with what its rules need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from bridge.cli.heppu_webhooks import heppu_api
from bridge.clock import format_timestamp, parse_timestamp
from bridge.connector.egress import is_loopback
from bridge.errors import BridgeError, ConfigError
from bridge.rules.event_uses import event_uses
from bridge.rules.model import Rules

PATH: Final = "/webhooks/heppu"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class WebhookFinding:
    """Something about the webhooks at Heppu: a problem, or a fact if `ok`."""

    ok: bool
    text: str
    fix: str = ""
    """The command or the setting that solves the problem."""

    def to_json(self) -> dict[str, Any]:
        """Return the finding for programs."""
        return {"ok": self.ok, "text": self.text, "fix": self.fix}


@dataclass(frozen=True)
class HeppuCheck:
    """The result of the check."""

    findings: Sequence[WebhookFinding] = ()
    skipped: str = ""
    """Why the webhooks were not checked; empty if they were."""

    @property
    def ok(self) -> bool:
        """True if there is no problem."""
        return all(finding.ok for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the result for programs."""
        return {
            "ok": self.ok,
            "skipped": self.skipped,
            "findings": [finding.to_json() for finding in self.findings],
        }


def check_heppu(rules: Rules, public_url: str | None) -> HeppuCheck:
    """List the webhooks at Heppu and compare them with what the rules need."""
    if public_url is None:
        return HeppuCheck(skipped="set BRIDGE_PUBLIC_URL to the public URL of this service")
    if is_loopback(urlsplit(public_url).hostname or ""):
        return HeppuCheck(skipped=f"Heppu cannot reach {public_url}; a tunnel provides a public HTTPS URL")
    try:
        with heppu_api() as (api, _):
            webhooks = api.list_webhooks()
    except ConfigError as error:
        return HeppuCheck(skipped=str(error))
    except BridgeError as error:
        return HeppuCheck([WebhookFinding(False, f"the webhooks cannot be listed: {error}")])
    return HeppuCheck(check_webhooks(webhooks, event_uses(rules), public_url))


@dataclass
class _Review:
    """The findings about the webhooks, and the event types that reach this service."""

    findings: list[WebhookFinding] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)

    def problem(self, text: str, fix: str) -> None:
        self.findings.append(WebhookFinding(False, text, fix))

    def fact(self, text: str) -> None:
        self.findings.append(WebhookFinding(True, text))


def check_webhooks(
    webhooks: Sequence[Mapping[str, Any]], needed: Mapping[str, Sequence[str]], public_url: str
) -> list[WebhookFinding]:
    """Compare the webhooks with the event types that rules need, and with BRIDGE_PUBLIC_URL.

    `needed` is event type -> the rules that need it. A webhook on another host is only mentioned: it may belong to
    another system.
    """
    review = _Review()
    expected = f"{public_url.rstrip('/')}{PATH}"
    ours = [webhook for webhook in webhooks if _is_ours(str(webhook.get("url") or ""), expected)]
    for webhook in webhooks:
        if webhook not in ours:
            review.fact(f"{_name(webhook)} sends to another system: {webhook.get('url')}")
    if not ours:
        review.problem(f"no webhook sends to {expected}, so no event comes", "bridge heppu webhooks create")
        return review.findings
    for webhook in ours:
        _review_webhook(review, webhook, expected)
    missing = {event_type: rules for event_type, rules in needed.items() if event_type not in review.reached}
    if missing:
        known = set().union(*(_events(webhook) for webhook in ours))
        wanted = " ".join(f"--event {event_type}" for event_type in sorted(known | set(missing)))
        for event_type, rules in missing.items():
            review.problem(
                f"{event_type} is not sent, but {', '.join(rules)} {'needs' if len(rules) == 1 else 'need'} it",
                f"bridge heppu webhooks update {_id(ours[0])} {wanted}",
            )
    _review_overlap(review, ours)
    return review.findings


def _review_webhook(review: _Review, webhook: Mapping[str, Any], expected: str) -> None:
    url, name = str(webhook.get("url") or ""), _name(webhook)
    status = str(webhook.get("status") or "unknown")
    wrong = _wrong_url(url, expected)
    if wrong:
        # Heppu documents no way to change the URL of a webhook.
        review.problem(
            f"{name}: {wrong}",
            f"bridge heppu webhooks create, then bridge heppu webhooks delete {_id(webhook)}",
        )
    if status != "active":
        review.problem(
            f"{name} is {status}, so Heppu may not send to it",
            f"make sure that {url} answers, then bridge heppu webhooks update {_id(webhook)} --status active",
        )
    is_reachable = status == "active" and not _never_arrives(url, expected)
    if is_reachable:
        review.reached |= _events(webhook)
    delivered = parse_timestamp(webhook.get("lastDeliveredAt"))
    last = (
        f"last delivered {format_timestamp(delivered)} UTC" if delivered else "nothing has been delivered yet"
    )
    review.fact(f"{name}: {len(_events(webhook))} event types to {url}, {last}")


def _review_overlap(review: _Review, ours: Sequence[Mapping[str, Any]]) -> None:
    """Mention event types that two webhooks send here: each event then comes twice, and one is a duplicate."""
    for index, webhook in enumerate(ours):
        for other in ours[index + 1 :]:
            both = sorted(_events(webhook) & _events(other))
            if both:
                review.problem(
                    f"{_id(webhook)} and {_id(other)} both send {', '.join(both)} here, so each event comes twice",
                    f"bridge heppu webhooks delete {_id(other)}",
                )


def _is_ours(url: str, expected: str) -> bool:
    """Return whether a webhook is meant for this service: same host, or the path of the webhook."""
    return urlsplit(url).hostname == urlsplit(expected).hostname or urlsplit(url).path.rstrip("/") == PATH


def _wrong_url(url: str, expected: str) -> str:
    """Return what is wrong with the URL of a webhook; empty if it is right."""
    if url == expected:
        return ""
    has, wants = urlsplit(url), urlsplit(expected)
    if has.hostname != wants.hostname:
        return f"it sends to {has.hostname}, but BRIDGE_PUBLIC_URL is on {wants.hostname}"
    if has.scheme != wants.scheme:
        return f"it sends to {has.scheme}:// instead of {wants.scheme}://"
    if _port(has) != _port(wants):
        return f"it sends to port {_port(has)} instead of {_port(wants)}"
    if has.path != wants.path:
        if has.path.rstrip("/") == wants.path:
            return f"its URL ends with a slash: {url} works, but a proxy may redirect it"
        return f"it sends to the path {has.path or '/'} instead of {wants.path}, which is answered with 404"
    return f"its URL is {url} instead of {expected}"


def _never_arrives(url: str, expected: str) -> bool:
    """Return whether requests to this URL do not reach the webhook of this service."""
    has, wants = urlsplit(url), urlsplit(expected)
    return has.hostname != wants.hostname or has.path.rstrip("/") != wants.path


def _port(url: SplitResult) -> int | None:
    return url.port or _DEFAULT_PORTS.get(url.scheme)


def _events(webhook: Mapping[str, Any]) -> set[str]:
    events = webhook.get("events")
    return {str(event) for event in events} if isinstance(events, list) else set()


def _id(webhook: Mapping[str, Any]) -> str:
    return str(webhook.get("id") or "?")


def _name(webhook: Mapping[str, Any]) -> str:
    return f"webhook {_id(webhook)}"
