"""The document that describes the API: `/api/openapi.json`."""

from __future__ import annotations

from typing import Any

from bridge.web.api.endpoint import Call, Resource

DOCUMENT = Resource("Description", "The description of this API, for clients and generators.")


@DOCUMENT.get("/openapi.json", response=dict[str, Any])
def get_openapi(_: Call) -> Any:
    """Get this description of the API in the format of OpenAPI 3.1."""
    # Imported when it is first asked for, because building the schemas of all responses takes a while.
    from bridge.web.api.openapi import openapi_document

    return openapi_document()
