"""The Slack connector with a bot token: channels, threads, links, and the lookup of a lost response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from bridge.connector import Context, RecordLink, SerializeBy
from bridge.connector.context import NullContactCache
from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.sandbox import RunningSandbox
from bridge.sandbox.slack_workspace import BotMessage
from bridge.testing import Connected, connect, event, load_connector
from bridge.testing.connection import build_context

slack = load_connector("slack")
post = slack.actions["post"]
RECORD = RecordLink("Open in HubSpot", "https://app.hubspot.com/contacts/1/record/0-1/77")
EVENT_LINK = "<https://bridge.example.com/events/evt_test|Open event>"
TEAM, SALES, LEADS = "C00TEAM01", "C00SALES1", "C00LEADS1"


class MemoryCache(NullContactCache):
    """The contact cache of a connection, in memory."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        return {key: self.values[key] for key in keys if key in self.values}

    def remember(self, ids: Mapping[str, str], ttl: timedelta = timedelta(0)) -> None:
        self.values |= ids


@pytest.fixture
def bot(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(slack, sandbox.slack_bot_environment) as connected:
        yield connected


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache()


def about(conversation: str, cache: MemoryCache, **overrides: Any) -> Context:
    occurred = event("call.busy", {"conversationId": conversation})
    return build_context(occurred, post, contact_cache=cache, **overrides)


def posted(sandbox: RunningSandbox) -> list[BotMessage]:
    return sandbox.slack.workspace.messages


@pytest.mark.parametrize(
    ("channel", "expected"),
    [(None, TEAM), ("#sales", SALES), (SALES, SALES), (LEADS, LEADS), ("#team", TEAM)],
)
def test_post_goes_to_the_channel_of_the_rule_or_the_setting(
    bot: Connected, sandbox: RunningSandbox, channel: str | None, expected: str
) -> None:
    result = bot.run("post", {"text": "Hello", "channel": channel})
    [message] = posted(sandbox)
    assert (message.channel, result.id) == (expected, f"{expected}:{message.ts}")
    assert (message.payload["unfurl_links"], message.payload["unfurl_media"]) == (False, False)


def test_post_links_to_the_event_and_the_crm_record(bot: Connected, sandbox: RunningSandbox) -> None:
    context = build_context(event(), post, find_crm_record=lambda: RECORD)
    bot.run("post", {"text": "Hello"}, context=context)
    bot.run("post", {"text": "Hello", "links": False}, context=context)
    bot.run("post", {"text": "&" * 50_000}, context=context)
    links = f"\n{EVENT_LINK} · <{RECORD.url}|{RECORD.label}>"
    first, second, third = (message.text for message in posted(sandbox))
    assert (first, second) == (f"Hello{links}", "Hello")
    assert third.endswith(f"&amp;…{links}")
    assert len(third) <= 40_000


def test_webhook_has_links_only_on_request(sandbox: RunningSandbox) -> None:
    with connect(slack, {"SLACK_WEBHOOK_URL": sandbox.environment["SLACK_WEBHOOK_URL"]}) as webhook:
        webhook.run("post", {"text": "Hello", "links": True})
    assert sandbox.slack.messages[0].text == f"Hello\n{EVENT_LINK}"


def test_name_of_a_visitor_mentions_nobody(bot: Connected, sandbox: RunningSandbox) -> None:
    visitor = event("chat.abandoned", {"metadata.contactName": "<!channel> <https://evil.example|Bank>"})
    bot.run("post", {"text": "<!here> {{ contact.name }}", "links": False}, event=visitor)
    assert (sandbox.slack.messages[0].mentions, sandbox.slack.messages[0].links) == (["!here"], [])


# ------------------------------------------------------------ threads


def test_messages_of_a_conversation_never_run_at_the_same_time() -> None:
    """Otherwise two of them could both start its thread."""
    assert post.serialize_by is SerializeBy.CONVERSATION


def test_later_messages_of_a_conversation_reply_to_the_first(
    bot: Connected, sandbox: RunningSandbox, cache: MemoryCache
) -> None:
    for conversation, params in (
        ("conv_1", {}),
        ("conv_1", {"thread": True}),
        ("conv_1", {"thread": True}),
        ("conv_2", {"thread": True}),
        ("conv_1", {"thread": True, "channel": "#sales"}),
        ("conv_1", {"thread": False}),
        ("conv_1", {"thread": True}),
    ):
        bot.run("post", {"text": "Hello"} | params, context=about(conversation, cache))
    first = posted(sandbox)[0]
    assert [message.thread_ts for message in posted(sandbox)] == [
        None, first.ts, first.ts, None, None, None, first.ts
    ]  # fmt: skip


@pytest.mark.parametrize("gone", ["deleted", "locked"])
def test_closed_thread_is_replaced(
    bot: Connected, sandbox: RunningSandbox, cache: MemoryCache, gone: str
) -> None:
    bot.run("post", {"text": "First"}, context=about("conv_1", cache))
    if gone == "locked":
        sandbox.slack.workspace.locked_threads.add(posted(sandbox)[0].ts)
    else:
        posted(sandbox)[0] = BotMessage(TEAM, "1.000001", "Another", {}, sandbox.clock.now())
    details = [
        bot.run("post", {"text": text, "thread": True}, context=about("conv_1", cache)).detail
        for text in ("Second", "Third")
    ]
    assert details == ["posted", "posted in the thread"]
    _, second, third = posted(sandbox)
    assert (second.thread_ts, third.thread_ts) == (None, second.ts)


# ------------------------------------------------------------ lost responses


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("page_size", [1, 999])
def test_lookup_finds_a_message_whose_response_was_lost(
    bot: Connected, sandbox: RunningSandbox, cache: MemoryCache, thread: bool, page_size: int
) -> None:
    sandbox.slack.workspace.page_size = page_size
    bot.run("post", {"text": "First"}, context=about("conv_1", cache))
    params, context = {"text": "Second", "thread": thread}, about("conv_1", cache)
    sandbox.fault("slack", path="/api/chat.postMessage", drop="after")
    with pytest.raises(OutcomeUnknown):
        bot.run("post", params, context=context)
    bot.run("post", {"text": "Third", "thread": True}, context=about("conv_1", cache))
    found = bot.find("post", params, context=context)
    assert found is not None
    assert found.id == f"{TEAM}:{posted(sandbox)[1].ts}"
    assert bot.find("post", params, context=about("conv_9", cache)) is None


def test_message_that_a_lookup_finds_starts_the_thread(
    bot: Connected, sandbox: RunningSandbox, cache: MemoryCache
) -> None:
    params, context = {"text": "First", "channel": TEAM}, about("conv_1", cache)
    sandbox.fault("slack", path="/api/chat.postMessage", drop="after")
    with pytest.raises(OutcomeUnknown):
        bot.run("post", params, context=context)
    assert bot.find("post", params, context=context) is not None
    bot.run("post", params | {"thread": True}, context=about("conv_1", cache))
    first, second = posted(sandbox)
    assert second.thread_ts == first.ts


def test_lookup_in_a_deleted_thread_finds_nothing(
    bot: Connected, sandbox: RunningSandbox, cache: MemoryCache
) -> None:
    bot.run("post", {"text": "First"}, context=about("conv_1", cache))
    posted(sandbox).clear()
    assert bot.find("post", {"text": "x", "thread": True}, context=about("conv_1", cache)) is None


def test_lookup_without_the_scope_says_which_one_helps(
    bot: Connected, sandbox: RunningSandbox, cache: MemoryCache
) -> None:
    sandbox.slack.workspace.scopes -= {"channels:history"}
    with pytest.raises(LookupInconclusive, match="channels:history"):
        bot.find("post", {"text": "x", "channel": TEAM}, context=about("conv_1", cache))


def test_lookup_in_a_channel_by_name_finds_the_message_whose_response_was_lost(
    bot: Connected, sandbox: RunningSandbox, cache: MemoryCache
) -> None:
    context = about("conv_1", cache)
    sandbox.fault("slack", path="/api/chat.postMessage", drop="after")
    with pytest.raises(OutcomeUnknown):
        bot.run("post", {"text": "x", "channel": "#sales"}, context=context)
    found = bot.find("post", {"text": "x", "channel": "#sales"}, context=context)
    assert found is not None
    assert found.id.startswith(SALES)
    assert bot.find("post", {"text": "x", "channel": "#sales"}, context=about("conv_2", cache)) is None


def test_lookup_needs_the_id_of_a_channel(
    bot: Connected, sandbox: RunningSandbox, cache: MemoryCache
) -> None:
    with pytest.raises(LookupInconclusive, match="#gone is unknown"):
        bot.find("post", {"text": "x", "channel": "#gone"}, context=about("conv_1", cache))
    sandbox.slack.workspace.scopes -= {"channels:read"}
    with pytest.raises(LookupInconclusive, match="channels:read"):
        bot.find("post", {"text": "x", "channel": "#sales"}, context=about("conv_1", cache))
    bot.run("post", {"text": "y", "channel": "#sales"}, context=about("conv_2", cache))
    assert bot.find("post", {"text": "x", "channel": "#sales"}, context=about("conv_1", cache)) is None


def test_lookup_of_a_webhook_is_inconclusive(sandbox: RunningSandbox) -> None:
    with (
        connect(slack, {"SLACK_WEBHOOK_URL": sandbox.environment["SLACK_WEBHOOK_URL"]}) as webhook,
        pytest.raises(LookupInconclusive, match="incoming webhook"),
    ):
        webhook.find("post", {"text": "x"})


# ------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("code", "error_type", "message"),
    [
        ("invalid_auth", AuthenticationError, "invalid_auth"),
        ("token_revoked", AuthenticationError, "token_revoked"),
        ("account_inactive", AuthenticationError, "account_inactive"),
        ("ekm_access_denied", AccountError, "ekm_access_denied"),
        ("channel_not_found", PermanentError, "invite the app"),
        ("not_in_channel", PermanentError, "/invite"),
        ("is_archived", PermanentError, "archived"),
        ("restricted_action", PermanentError, "administrator"),
        ("msg_too_long", PermanentError, "msg_too_long"),
        ("a_new_error", PermanentError, "a_new_error"),
        ("<b>not a code</b>", PermanentError, "unknown"),
        ("internal_error", OutcomeUnknown, "internal_error"),
        ("fatal_error", OutcomeUnknown, "fatal_error"),
        ("service_unavailable", OutcomeUnknown, "service_unavailable"),
        ("request_timeout", TransientError, "request_timeout"),
        ("team_added_to_org", TransientError, "team_added_to_org"),
        ("message_limit_exceeded", QuotaExhausted, "used up"),
        ("ratelimited", RateLimited, "ratelimited"),
    ],
)
def test_error_with_status_200_is_classified(
    bot: Connected, sandbox: RunningSandbox, code: str, error_type: type[DeliveryError], message: str
) -> None:
    sandbox.fault("slack", status=200, body={"ok": False, "error": code})
    with pytest.raises(error_type, match=message) as caught:
        bot.run("post", {"text": "Hello"})
    assert type(caught.value) is error_type
    assert posted(sandbox) == []


@pytest.mark.parametrize(
    "body", [{}, {"ok": True}, {"ok": True, "channel": "C1", "ts": 5}, [], "<html>login</html>"]
)
def test_response_that_does_not_confirm_leaves_the_outcome_unknown(
    bot: Connected, sandbox: RunningSandbox, body: Any
) -> None:
    sandbox.fault("slack", status=200, body=body)
    with pytest.raises(OutcomeUnknown):
        bot.run("post", {"text": "Hello"})


def test_rate_limit_keeps_retry_after(bot: Connected, sandbox: RunningSandbox) -> None:
    body = {"ok": False, "error": "ratelimited"}
    sandbox.fault("slack", status=429, retry_after=30, body=body)
    with pytest.raises(RateLimited) as caught:
        bot.run("post", {"text": "Hello"})
    assert caught.value.retry_after == timedelta(seconds=30)


def test_missing_scope_names_it(bot: Connected, sandbox: RunningSandbox) -> None:
    sandbox.slack.workspace.scopes.clear()
    with pytest.raises(AccountError, match="lacks the scope chat:write") as caught:
        bot.run("post", {"text": "Hello"})
    assert "OAuth & Permissions" in caught.value.fix


# ------------------------------------------------------------ settings and checks


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "SLACK_WEBHOOK_URL is not set"),
        ({"SLACK_BOT_TOKEN": "xoxp-hidden"}, "is not a bot token"),
        ({"SLACK_BOT_TOKEN": "xoxe.xoxb-hidden"}, "turn off token rotation"),
        (
            {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/x"},
            "either",
        ),
        (
            {"SLACK_CHANNEL": "#a", "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/x"},
            "its own channel",
        ),
        ({"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_CHANNEL": "team"}, "SLACK_CHANNEL"),
    ],
)
def test_settings_that_contradict_are_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        connect(slack, environ)
    assert "hidden" not in str(caught.value)


def test_params_that_the_connection_lacks_are_found_when_rules_are_loaded(sandbox: RunningSandbox) -> None:
    check = post.run_check_params
    assert check is not None
    webhook = slack.settings.from_environment({"SLACK_WEBHOOK_URL": "https://a.example/b"}, "SLACK_")
    bot = slack.settings.from_environment({"SLACK_BOT_TOKEN": "xoxb-1"}, "SLACK_")
    unset = {"channel": None, "thread": None, "links": None}
    assert check(webhook, unset) is None
    assert "need SLACK_BOT_TOKEN" in str(check(webhook, unset | {"thread": True}))
    assert "need SLACK_BOT_TOKEN" in str(check(webhook, unset | {"channel": "#team"}))
    assert "needs `channel`" in str(check(bot, unset))
    assert check(bot, unset | {"channel": "#team"}) is None
    assert check(bot, {"thread": None}) is None  # the channel is a template
    assert check(slack.settings.from_environment(sandbox.slack_bot_environment, "SLACK_"), unset) is None


def test_check_names_the_bot_and_posts_nothing(bot: Connected, sandbox: RunningSandbox) -> None:
    assert bot.check() == "posts as @bridge in Harbour Light"
    assert posted(sandbox) == []


@pytest.mark.parametrize(
    ("channel", "message"),
    [("#old", "archived"), ("#missing", "sees no channel"), ("C00HIDDEN", "sees no channel")],
)
def test_check_finds_a_default_channel_that_cannot_work(
    sandbox: RunningSandbox, channel: str, message: str
) -> None:
    environ = sandbox.slack_bot_environment | {"SLACK_CHANNEL": channel}
    with connect(slack, environ) as bot, pytest.raises(AccountError, match=message):
        bot.check()


def test_check_rules_finds_channels_that_cannot_work(bot: Connected, sandbox: RunningSandbox) -> None:
    sandbox.slack.workspace.page_size = 2
    right = ("#sales", LEADS, "U00SANDBOX", "#team", "{{ event.event }}")
    steps = [
        ("post", {"text": "x", "channel": channel})
        for channel in (*right, "#saels", "#old", "#other", "C00HIDDEN")
    ]
    problems = bot.check_rules(*steps, ("post", {"text": "x"}))
    assert [(item.level, item.text, item.hint, item.location) for item in problems] == [
        ("error", "the app sees no channel #saels", "did you mean #sales?", ("channel",)),
        ("error", "the channel #old is archived", "unarchive it, or choose another one", ("channel",)),
        (
            "warning",
            "the app is not in the channel #other",
            "invite it with /invite, or add the scope chat:write.public",
            ("channel",),
        ),
        (
            "error",
            "the app sees no channel C00HIDDEN",
            "a private channel needs its ID and the app as a member",
            ("channel",),
        ),
    ]


def test_check_without_the_scope_to_list_channels_warns_once(bot: Connected, sandbox: RunningSandbox) -> None:
    sandbox.slack.workspace.scopes -= {"channels:read", "groups:read"}
    [problem] = bot.check_rules(*(("post", {"text": "x", "channel": name}) for name in ("#sales", "#saels")))
    assert (problem.level, problem.use) == ("warning", None)
    assert "channels:read" in problem.hint
    assert "channels:read" in bot.check()
