"""What a set of rules does, in short: its policy in words, and the lines of the file that a rule consists of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.clock import format_duration
from bridge.connector.callbacks import Channel
from bridge.rules.model import Cap, MessagingPolicy, Rule, Rules
from bridge.rules.quiet_hours import DAYS, HOLIDAYS, QuietHours
from bridge.rules.sources import SourceFile, split_sources
from bridge.rules.yaml import lines_of

MAX_LINES: Final = 200
"""Lines of a rule that are shown."""
_CHANNELS: Final[Mapping[Channel, str]] = {
    "sms": "texts", "whatsapp": "WhatsApp messages", "email": "emails", "call": "calls",
}  # fmt: skip


def policy_in_words(rules: Rules) -> list[str]:
    """Return what applies to every message of these rules, one item per setting."""
    policy = rules.messaging
    hours = {channel: _hours(value) for channel, value in policy.quiet_hours.items()}
    parts = [f"quiet hours {text}" for text in _merged(hours)]
    parts += [f"stricter hours in {', '.join(sorted(policy.regions))}"] if policy.regions else []
    if policy.caps:
        parts.append(f"at most {_caps(policy.caps)} per recipient")
    if policy.total_caps:
        parts.append(f"a connection pauses after {_caps(policy.total_caps)}")
    parts += [f"only {', '.join(sorted(policy.countries))} are texted and called"] if policy.countries else []
    parts += [f"consent: {policy.consent}"] if policy.consent else []
    parts += [f"opt-outs are also read from {', '.join(policy.crm_opt_outs)}"] if policy.crm_opt_outs else []
    parts += [_opt_out_scope(policy), f"{policy.time_zone} if the recipient's time zone is unknown"]
    uses = dict.fromkeys(f"{step.use}" for step in rules.alerts)
    return [*parts, f"alerts by {', '.join(uses)}" if uses else "no alerts"]


def _merged(texts: Mapping[Channel, str]) -> list[str]:
    """Return each text with its channels, or without them if it is that of all channels."""
    if len(set(texts.values())) == 1:
        return [f"{next(iter(texts.values()))}, in the recipient's local time"]
    channels: dict[str, list[str]] = {}
    for channel, text in texts.items():
        channels.setdefault(text, []).append(_CHANNELS[channel])
    return [f"of {' and '.join(names)}: {text}" for text, names in channels.items()]


def _hours(hours: QuietHours) -> str:
    if hours.is_empty:
        return "none"
    if hours.is_daily:
        return str(hours.week[0])
    days = {day: str(window) for day, window in zip(DAYS, hours.week, strict=True)}
    if hours.holidays is not None:
        days[HOLIDAYS] = str(hours.holidays)
    return ", ".join(f"{day} {window}" for day, window in days.items())


def _caps(caps: Mapping[Channel, Cap]) -> str:
    """Return caps in words, those of equal size together: `2 texts or WhatsApp messages in 24h, 2 emails in 7d`."""
    channels: dict[Cap, list[str]] = {}
    for channel, cap in caps.items():
        channels.setdefault(cap, []).append(_CHANNELS[channel])
    return ", ".join(
        f"{cap.count} {' or '.join(names)} in {format_duration(cap.per)}" for cap, names in channels.items()
    )


def _opt_out_scope(policy: MessagingPolicy) -> str:
    reach = {"channel": "its channel", "phone": "texts, WhatsApp and calls together", "all": "every channel"}
    return f"an opt-out covers {reach[policy.opt_out_scope]}"


def display_files(rules: Rules) -> list[SourceFile]:
    """Return the files of a set, with names from its folder on."""
    return split_sources(rules.text, Path(rules.path).name)


@dataclass(frozen=True)
class RuleSource:
    """The lines of the file that a rule consists of."""

    file: str
    first_line: int
    lines: tuple[str, ...]


def rule_source(rules: Rules, rule: Rule) -> RuleSource:
    """Return the lines of a rule: up to the next line that is not indented more than its first one."""
    file = _file_of(rules, rule)
    lines = lines_of(str(file.content))
    first = rule.line - 1
    indent = _indent(lines[first]) if first < len(lines) else 0
    end = first + 1
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
        end += 1
    found = lines[first : min(end, first + MAX_LINES)]
    while found and (not found[-1].strip() or found[-1].lstrip().startswith("#")):
        found.pop()
    return RuleSource(file.name or file.path, rule.line, tuple(line[indent:] for line in found))


def _file_of(rules: Rules, rule: Rule) -> SourceFile:
    """Return the file that contains a rule; a set of several has names relative to its folder."""
    files = display_files(rules)
    name = displayed_name(rule.path, [file.name for file in files])
    return next((file for file in files if file.name == name), files[0])


def displayed_name(path: str, names: Iterable[str]) -> str | None:
    """Return which of these names, relative to the folder of a set, is that of the file at a path."""
    parts = Path(path).parts
    matching = (name for name in names if parts[-len(Path(name).parts) :] == Path(name).parts)
    return max(matching, key=len, default=None)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
