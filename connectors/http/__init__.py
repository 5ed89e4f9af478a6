"""HTTP connector: sends requests to your own services and to automation tools, signed by Standard Webhooks."""

from .request import post, request
from .sender import Sender, check
from .settings import Settings, connector

__all__ = ["Sender", "Settings", "check", "connector", "post", "request"]
