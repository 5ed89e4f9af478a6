"""Pagination: how the address of the next page is found, for the common forms of list endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge.connector.json_response import value_at
from bridge.errors import TransientError
from bridge.lazy import LazyModule

if TYPE_CHECKING:
    import httpx
else:
    httpx = LazyModule("httpx")


@dataclass(frozen=True)
class Pagination:
    """How a list endpoint is paged: exactly one of the four, or none for the header `Link`."""

    cursor: tuple[str, str] | None = None
    link: str | None = None
    page_number: str | None = None
    offset: str | None = None
    first_page: int = 1

    def __post_init__(self) -> None:
        """Raise TypeError if two of them are given."""
        given = [self.cursor, self.link, self.page_number, self.offset]
        if sum(value is not None for value in given) > 1:
            raise TypeError("JsonApi.pages: pass one of cursor, link, page_number and offset")

    @property
    def is_counted(self) -> bool:
        """Whether pages are asked for by a number, so that only an empty page proves the end of the list."""
        return self.page_number is not None or self.offset is not None

    def first(self, url: httpx.URL) -> httpx.URL:
        """Return the URL of the first page."""
        if self.page_number is not None:
            return url.copy_set_param(self.page_number, self.first_page)
        return url if self.offset is None else url.copy_set_param(self.offset, 0)

    def following(
        self, url: httpx.URL, page: Any, response: httpx.Response, *, pages: int, items: int, source: str
    ) -> httpx.URL | None:
        """Return the URL of the next page after `pages` with `items` in total; None if the provider names no next page.

        `source` names the response in messages. Raise TransientError for a cursor or link that is invalid.
        """
        if self.page_number is not None:
            return url.copy_set_param(self.page_number, self.first_page + pages)
        if self.offset is not None:
            return url.copy_set_param(self.offset, items)
        if self.cursor is not None:
            key, parameter = self.cursor
            value = value_at(page, key)
            if value is None or value is False or value == "":
                return None
            if isinstance(value, str | int):
                return url.copy_set_param(parameter, value)
            raise TransientError(f"{source} has an invalid cursor in `{key}`")
        target = response.links.get("next", {}).get("url") if self.link is None else value_at(page, self.link)
        if not target:
            return None
        try:
            return url.join(target)
        except (httpx.InvalidURL, TypeError, ValueError):
            raise TransientError(f"{source} has an invalid link") from None
