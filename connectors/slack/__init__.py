"""Slack connector: posts messages through an incoming webhook of a channel, or as the bot of an app to any channel."""

from .check import check, check_rules
from .post import client, find_post, post, record_url, where_to_look
from .settings import Settings, connector

__all__ = [
    "Settings",
    "check",
    "check_rules",
    "client",
    "connector",
    "find_post",
    "post",
    "record_url",
    "where_to_look",
]
