"""The checks of `bridge check --online`: the webhook or the bot, and the channels that rules name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from bridge.connector import ActionUse, RuleProblem, nearest
from bridge.errors import AccountError, PermanentError

from .bot import Bot, MissingScope
from .settings import connector
from .webhook import Webhook


@connector.check
def check(slack: Webhook | Bot) -> str:
    """Send a webhook a message without text, which Slack rejects; ask Slack who the bot is. Posts nothing."""
    if isinstance(slack, Webhook):
        return slack.check()
    identity = slack.identity()
    problem = _Channels(slack).problem_of(slack.channel) if slack.channel else None
    if problem is not None and problem.level == "error":
        raise AccountError(f"SLACK_CHANNEL: {problem.text}", fix=problem.hint)
    note = f"; {problem.text}: {problem.hint}" if problem else ""
    return f"posts as @{identity.get('user', '?')} in {identity.get('team', '?')}{note}"


@connector.check_rules
def check_rules(slack: Webhook | Bot, uses: Sequence[ActionUse]) -> Sequence[RuleProblem]:
    """Find channels that do not exist, are archived, or that the app is not in."""
    if isinstance(slack, Webhook):
        return []
    channels = _Channels(slack)
    problems: list[RuleProblem] = []
    for use in uses:
        channel = use.params.get("channel")
        if not isinstance(channel, str):
            continue
        problem = channels.problem_of(channel)
        if problem is _UNREADABLE:
            return [*problems, RuleProblem(problem.text, problem.hint, level="warning")]
        if problem is not None:
            problems.append(RuleProblem(problem.text, problem.hint, use, ("channel",), problem.level))
    return problems


class _Problem(NamedTuple):
    text: str
    hint: str
    level: Literal["error", "warning"] = "error"


_UNREADABLE = _Problem(
    "the app may not list channels, so those of the rules are not checked",
    "add the scopes channels:read and groups:read; posting works without them",
    "warning",
)


class _Channels:
    """The channels that the bot can see, read once."""

    def __init__(self, bot: Bot) -> None:
        self._bot = bot
        self._by_name: dict[str, dict[str, object]] | None = None

    def problem_of(self, channel: str) -> _Problem | None:
        """Return what is wrong with a channel; None also for a person, whom the bot can always write to."""
        if channel[0] in "UW":
            return None
        try:
            info = self._find(channel)
        except MissingScope:
            return _UNREADABLE
        except PermanentError:
            info = None
        if info is None:
            names = [f"#{name}" for name in self._by_name or ()]
            similar = nearest(channel, names) if channel.startswith("#") else None
            hint = (
                f"did you mean {similar}?"
                if similar
                else "a private channel needs its ID and the app as a member"
            )
            return _Problem(f"the app sees no channel {channel}", hint)
        if info.get("is_archived"):
            return _Problem(f"the channel {channel} is archived", "unarchive it, or choose another one")
        if info.get("is_member") is False:
            return _Problem(
                f"the app is not in the channel {channel}",
                "invite it with /invite, or add the scope chat:write.public",
                "warning",
            )
        return None

    def _find(self, channel: str) -> dict[str, object] | None:
        if not channel.startswith("#"):
            return dict(self._bot.channel_info(channel))
        if self._by_name is None:
            self._by_name = {str(item.get("name")): item for item in self._bot.public_channels()}
        return self._by_name.get(channel[1:])
