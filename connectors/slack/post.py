"""The action `slack.post`: messages to channels, threads of conversations, and the lookup of a lost response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bridge.connector import (
    Context,
    Params,
    ProviderRecord,
    SerializeBy,
    Success,
    UncertainDelivery,
    WhereToLook,
    param,
    per_event,
)
from bridge.errors import LookupInconclusive, PermanentError

from .bot import THREAD_CLOSED, Bot, MissingScope
from .settings import CHANNEL, CHANNEL_FORM, Settings, connector
from .text import mrkdwn
from .webhook import Webhook

THREAD_LIFETIME = timedelta(days=30)
"""Later messages about a conversation start a new thread."""
_CLOCK_SKEW = timedelta(minutes=5)
_METADATA_TYPE = "bridge_message"


@connector.client
def client(settings: Settings) -> Webhook | Bot:
    """Return the client of the webhook, or of the bot."""
    if settings.bot_token is not None:
        return Bot(settings.url, settings.bot_token, settings.channel)
    assert settings.webhook_url is not None  # noqa: S101 - the settings require one of the two
    return Webhook(settings.webhook_url)


class PostParams(Params):
    """A message to the team."""

    text: str = param(
        ...,
        "Message text, with Slack's *bold*, _italics_, links (`<https://example.com|text>`) and mentions "
        "(`<!channel>`, `<@U012AB3CD>`). Values from the event are escaped: a visitor's name cannot mention @channel.",
        example="A call from {{ contact.name | default('an unknown caller') }} failed: {{ event.conversationId }}",
        markup="slack",
        min_length=1,
    )
    channel: str | None = param(
        None,
        "Channel to post to: its ID, or the #name of a public channel. Needs a bot token. Default: SLACK_CHANNEL.",
        example="#team",
        pattern=CHANNEL,
        must_be=CHANNEL_FORM,
    )
    thread: bool = param(
        False,
        "Reply to the first message that was posted about the conversation to this channel. Needs a bot token.",
        example=True,
    )
    links: bool | None = param(
        None,
        "Add a line with links to the event in the dashboard (with BRIDGE_PUBLIC_URL) and to the contact in the CRM "
        "(if a connection has found it). Default: true with a bot token, false with a webhook.",
        example=True,
    )


@connector.action(
    idempotency=per_event,
    dedupe_by=("text", "channel"),
    serialize_by=SerializeBy.CONVERSATION,
    needs=("chat:write",),
)
def post(slack: Webhook | Bot, params: PostParams, context: Context) -> Success:
    """Post a message to a channel."""
    links = isinstance(slack, Bot) if params.links is None else params.links
    text = mrkdwn(params.text, context.team_links() if links else ())
    if isinstance(slack, Webhook):
        slack.post(text)
        return Success(detail="posted")
    place = _Place.of(slack, params, context)
    parent = place.parent()
    message: dict[str, Any] = {
        "channel": place.channel,
        "text": text,
        # Neither the links nor what a visitor wrote unfolds into a preview.
        "unfurl_links": False,
        "unfurl_media": False,
        "metadata": {"event_type": _METADATA_TYPE, "event_payload": {"token": context.idempotency_token}},
    }
    thread = parent[1] if params.thread and parent is not None else None
    try:
        posted = slack.post(message if thread is None else message | {"thread_ts": thread})
    except PermanentError as error:
        if thread is None or error.code not in THREAD_CLOSED:
            raise
        posted = slack.post(message)
    if parent is None or (thread is not None and not posted.is_reply):
        place.remember(posted.channel, posted.ts)
    detail = "posted in the thread" if posted.is_reply else "posted"
    return Success(id=f"{posted.channel}:{posted.ts}", detail=detail)


@post.lookup
def find_post(slack: Webhook | Bot, params: PostParams, context: Context) -> Success | None:
    """Find the message by the idempotency token in its metadata, in the channel and in the conversation's thread."""
    if isinstance(slack, Webhook):
        raise LookupInconclusive(
            "an incoming webhook cannot read the channel: check there, or connect a bot token instead"
        )
    place = _Place.of(slack, params, context)
    parent = place.parent()
    channel_id = place.channel_id() or _id_of_name(slack, place.channel)
    if channel_id is None:
        raise LookupInconclusive(
            f"Slack lists messages by the ID of a channel only: that of {place.channel} is unknown, because no message "
            "to it has succeeded before, and no public channel that the app may list (channels:read) has this name"
        )
    oldest = (context.first_attempt_at - _CLOCK_SKEW).timestamp()
    threads = [None] if parent is None or not params.thread else [None, parent[1]]
    for thread in threads:
        ts = _find(slack, channel_id, oldest, thread, context.idempotency_token)
        if ts is not None:
            if parent is None or (params.thread and thread is None):
                place.remember(channel_id, ts)
            return Success(id=f"{channel_id}:{ts}", detail="posted")
    return None


def _id_of_name(bot: Bot, channel: str) -> str | None:
    """Return the ID of a public channel with this #name; None without it, or without the scope to list channels."""
    if not channel.startswith("#"):
        return None
    try:
        return next(
            (str(item["id"]) for item in bot.public_channels() if item.get("name") == channel[1:]), None
        )
    except MissingScope:
        return None


def _find(bot: Bot, channel_id: str, oldest: float, thread: str | None, token: str) -> str | None:
    """Return the `ts` of the message with this token in a channel or thread; None if it is not there."""
    try:
        for message in bot.messages(channel_id, oldest, thread):
            if _token_of(message) == token:
                return str(message.get("ts", ""))
    except (MissingScope, PermanentError) as error:
        if isinstance(error, PermanentError) and error.code in THREAD_CLOSED:
            return None  # there is no such thread
        raise LookupInconclusive(
            "the app may not read the channel; with channels:history (private channels: groups:history) and as a "
            "member, the bridge finds such messages itself"
        ) from error
    return None


def _token_of(message: Mapping[str, Any]) -> object:
    metadata = message.get("metadata")
    payload = metadata.get("event_payload") if isinstance(metadata, dict) else None
    return payload.get("token") if isinstance(payload, dict) else None


@dataclass(frozen=True)
class _Place:
    """Where a message goes: a channel, and the thread of the conversation in it."""

    channel: str
    """As the rule or the setting writes it."""
    context: Context

    @classmethod
    def of(cls, bot: Bot, params: PostParams, context: Context) -> _Place:
        channel = params.channel or bot.channel
        if channel is None:
            raise PermanentError(_NO_CHANNEL, code="channel")
        return cls(channel, context)

    def parent(self) -> tuple[str, str] | None:
        """Return the channel's ID and the `ts` of the conversation's first message; None if there is none."""
        value = self.context.contact_cache.get([self._thread_key]).get(self._thread_key, "")
        channel_id, _, ts = value.partition(":")
        return (channel_id, ts) if ts else None

    def channel_id(self) -> str | None:
        """Return the channel's ID; None for a name to which nothing has been posted yet."""
        if self.channel[0] in "CDG":
            return self.channel
        return self.context.contact_cache.get([self._channel_key]).get(self._channel_key)

    def remember(self, channel_id: str, ts: str) -> None:
        """Remember the first message about the conversation. Deliveries of a conversation run one after the other."""
        self.context.contact_cache.remember(
            {self._thread_key: f"{channel_id}:{ts}", self._channel_key: channel_id}, THREAD_LIFETIME
        )

    @property
    def _thread_key(self) -> str:
        return f"thread:{self.channel}:{self.context.event.conversation.id}"

    @property
    def _channel_key(self) -> str:
        return f"channel:{self.channel}"


_NO_CHANNEL = "`slack.post` needs `channel`, or the setting SLACK_CHANNEL of its connection"


@post.check_params
def check_post(settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Find a param that a webhook does not have, and a missing channel."""
    if settings.bot_token is None:
        if params.get("channel") or params.get("thread"):
            return "`channel` and `thread` need SLACK_BOT_TOKEN: a webhook posts to its own channel, without threads"
        return None
    return _NO_CHANNEL if "channel" in params and not params["channel"] and not settings.channel else None


@connector.record_url
def record_url(settings: Settings, record: ProviderRecord) -> str | None:
    """Return the channel of a message."""
    channel_id, _, ts = record.external_id.partition(":")
    if not ts or not channel_id.isalnum():
        return None
    return f"{settings.url.removesuffix('/api')}/app_redirect?channel={channel_id}"


@connector.where_to_look
def where_to_look(settings: Settings, delivery: UncertainDelivery) -> WhereToLook:
    """Name the channel of a message."""
    channel = delivery.params.get("channel") or settings.channel
    return WhereToLook(
        f"Look for the message in {f'the channel {channel}' if channel else 'the channel'} of Slack."
    )
