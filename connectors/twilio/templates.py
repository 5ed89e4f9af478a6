"""Content templates of a Twilio account: what one contains, whether WhatsApp has approved it, and its variables.

Twilio accepts a message without a variable, and the person gets the sample of the template instead, such as "Hi
John". The connector therefore reads a template before it sends one.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from twilio.base.exceptions import TwilioException, TwilioRestException

from bridge.errors import DeliveryError, OutcomeUnknown, PermanentError, TransientError

if TYPE_CHECKING:
    from twilio.rest import Client

T = TypeVar("T")

MAX_LENGTH = 1024
"""Characters of a template with its variables, by WhatsApp's limit."""
MAX_SAME_NAME = 100
"""Templates of one name that are read. Each language is a template of its own."""
CACHE_SIZE = 200
"""Approved templates that are kept."""
CACHE_SECONDS = 600.0
"""How long an approved template is used without reading it again."""

SID = re.compile(r"HX[0-9a-fA-F]{32}")
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z0-9_]{1,16})\s*\}\}")


@dataclass(frozen=True)
class Template:
    """One template, in one language."""

    sid: str
    name: str
    language: str
    approval: str
    """WhatsApp's decision: `approved`, `pending`, `rejected`, `paused`, `disabled`; `unsubmitted` without a request."""
    text: str
    """The text with its placeholders; empty if there is none, as in a template that is only a picture."""
    placeholders: frozenset[str]

    @property
    def approved(self) -> bool:
        """Whether it may begin a conversation."""
        return self.approval == "approved"

    def fill(self, variables: Mapping[str, str]) -> str:
        """Return the text with its variables."""
        return _PLACEHOLDER.sub(lambda match: variables.get(match[1], match[0]), self.text)

    def problem_with(self, names: Mapping[str, Any]) -> str:
        """Return what is wrong with the names of variables; empty if they are those of the template."""
        missing, unknown = sorted(self.placeholders - names.keys()), sorted(names.keys() - self.placeholders)
        if missing:
            return (
                f"the template `{self.name}` needs {_listed(missing)} in `variables`: without a value, the person "
                "gets the sample"
            )
        if unknown:
            return f"the template `{self.name}` has no {_listed(unknown)}: remove it from `variables`"
        return ""


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


class TemplateReader:
    """Reads templates over Twilio's Content API. Threads share it."""

    def __init__(self, api: Client, classify: Callable[[Exception], DeliveryError | None]) -> None:
        self._api = api
        self._classify = classify
        self._cache: dict[tuple[str, str | None], tuple[float, Template]] = {}
        self._lock = threading.Lock()

    def find(self, name: str, language: str | None) -> Template:
        """Return the template with this SID or name. An approved one is preferred.

        Raise PermanentError if there is none, or if several languages have the name and `language` names none of them.
        """
        key = (name, language)
        with self._lock:
            cached = self._cache.get(key)
        if cached and time.monotonic() - cached[0] < CACHE_SECONDS:
            return cached[1]
        template = self._by_sid(name) if SID.fullmatch(name) else self._by_name(name, language)
        if template.approved:
            with self._lock:
                if len(self._cache) >= CACHE_SIZE:
                    self._cache.clear()
                self._cache[key] = (time.monotonic(), template)
        return template

    def _by_sid(self, sid: str) -> Template:
        with self._reading():
            try:
                content = self._api.content.v1.contents(sid).fetch()
            except TwilioRestException as error:
                if error.status != 404:
                    raise
                raise PermanentError(
                    f"the template {sid} does not exist in this account: copy the SID from the Content Template "
                    "Builder",
                    code="template_not_found",
                ) from error
        return self._with_approval(content)

    def _by_name(self, name: str, language: str | None) -> Template:
        with self._reading():
            # Twilio takes the name for a pattern, which may match others as well.
            found = self._api.content.v2.contents.list(
                content_name=name, limit=MAX_SAME_NAME, page_size=MAX_SAME_NAME
            )
        named = [item for item in found if item.friendly_name == name]
        if not named:
            raise PermanentError(
                f"the account has no template `{name}`: create it in the Content Template Builder",
                code="template_not_found",
            )
        if language is not None and not any(item.language == language for item in named):
            languages = _listed(sorted({str(item.language) for item in named}))
            raise PermanentError(
                f"the template `{name}` has no language `{language}`, but {languages}",
                code="template_not_found",
            )
        templates = [
            self._with_approval(item) for item in named if language is None or item.language == language
        ]
        candidates = [template for template in templates if template.approved] or templates
        if len({template.language for template in candidates}) > 1:
            languages = _listed(sorted({template.language for template in candidates}))
            raise PermanentError(
                f"several templates are named `{name}`: set `language` to one of {languages}",
                code="template_ambiguous",
            )
        return candidates[0]

    def _with_approval(self, content: Any) -> Template:
        types = content.types
        if not content.sid or not isinstance(types, Mapping):
            raise TransientError("the response is not a template of Twilio's Content API")
        with self._reading():
            whatsapp = self._api.content.v1.contents(content.sid).approval_fetch().fetch().whatsapp
        approval = whatsapp.get("status") if isinstance(whatsapp, Mapping) else None
        return Template(
            content.sid,
            str(content.friendly_name or content.sid),
            str(content.language or ""),
            str(approval or "unsubmitted"),
            _text_of(types),
            frozenset(_PLACEHOLDER.findall(json.dumps(types))),
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Classify errors of a request that changes nothing: an unknown outcome is none."""
        from requests import RequestException  # the SDK has imported it

        try:
            yield
        except DeliveryError as error:
            raise _without_effect(error) from error
        except (TwilioException, RequestException) as error:
            failure = self._classify(error)
            if failure is None:
                raise
            raise _without_effect(failure) from error
        except (AttributeError, TypeError) as error:  # the SDK takes any JSON object for the resource
            raise TransientError("the response is not one of Twilio's Content API") from error


def _without_effect(error: DeliveryError) -> DeliveryError:
    if isinstance(error, OutcomeUnknown):
        return TransientError(error.detail, reason=error.reason, retry_after=error.retry_after)
    return error


def _text_of(types: Mapping[str, Any]) -> str:
    """Return the text of the first content type that has one."""
    bodies = (
        content.get("body") or content.get("title")
        for content in types.values()
        if isinstance(content, Mapping)
    )
    return next((body for body in bodies if isinstance(body, str)), "")
