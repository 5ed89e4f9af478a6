"""Email connector: sends messages over SMTP, with one-click unsubscribe, and logs in by password or OAuth."""

from .client import check, classify_error, client
from .oauth import token
from .send import send
from .settings import Settings, connector
from .where_to_look import where_to_look

__all__ = ["Settings", "check", "classify_error", "client", "connector", "send", "token", "where_to_look"]
