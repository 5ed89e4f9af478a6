"""Session of one Salesforce org: login, and renewal of a refused token."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import SecretStr

from bridge.connector import Token, TokenSource
from bridge.errors import AuthenticationError, DeliveryError, TransientError

from . import sdk
from .settings import Settings, connector

T = TypeVar("T")
Record = dict[str, Any]


class Session:
    """Session shared by all threads, with a token that all processes share.

    The SDK's own renewal loops if a session is rejected repeatedly, and each thread renews for itself. The SDK
    therefore gets a session that it cannot renew.
    """

    def __init__(self, settings: Settings, tokens: TokenSource) -> None:
        from .transport import Transport

        self._api_version = settings.api_version
        self._tokens = tokens
        self._transport = Transport(settings)
        self._current: tuple[Token, sdk.Salesforce] | None = None
        self.close = self._transport.http.close

    @property
    def usage(self) -> str:
        """`18/5000`: requests of the whole org in the last 24 hours, as last reported by Salesforce."""
        return self._transport.adapter.usage

    def run(self, call: Callable[[sdk.Salesforce], T]) -> T:
        """Return the result of an SDK call. If the session has expired, log in and call once more."""
        token = self._tokens.current()
        try:
            return call(self._api(token))
        except sdk.SalesforceError as error:
            if error.status != 401:
                raise
        return call(self._api(self._tokens.current(refused=token)))

    def _api(self, token: Token) -> sdk.Salesforce:
        current = self._current
        if current is not None and current[0] == token:
            return current[1]
        domain = f"{self._transport.domain}.salesforce.com"
        api = sdk.Salesforce(
            session_id=token.access.get_secret_value(),
            instance=domain if self._transport.adapter.redirect_to else token.url or domain,
            session=self._transport.http,
            version=self._api_version,
        )
        self._current = (token, api)
        return api


@connector.token
def token(settings: Settings, previous: Token | None) -> Token:
    """Log in. Salesforce does not tell when a session expires, so it is used until it is refused."""
    import requests

    from .transport import Transport

    del previous
    transport = Transport(settings)
    credentials: dict[str, Any] = {
        "consumer_key": settings.consumer_key.get_secret_value(),
        "session": transport.http,
    }
    if settings.consumer_secret is not None:
        credentials |= {
            "consumer_secret": settings.consumer_secret.get_secret_value(),
            "domain": transport.domain,
        }
    else:
        is_test_org = transport.domain.endswith((".sandbox.my", ".scratch.my"))
        credentials |= {
            "username": settings.username,
            "privatekey_file": settings.private_key_file,
            "domain": "test" if is_test_org else "login",
            "instance_url": transport.domain,
        }
    try:
        with transport.http, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the SDK's warnings contain the consumer key
            access, instance = sdk.SalesforceLogin(**credentials)
    except requests.RequestException as error:
        # No record was sent yet, whatever the outcome of the login.
        raise TransientError(f"no login: {type(error).__name__}", reason="network") from error
    except (AttributeError, TypeError) as error:
        raise TransientError(
            "the response to the login is not Salesforce's: check for a proxy in between"
        ) from error
    except (sdk.SalesforceError, DeliveryError):
        raise
    except Exception as error:
        raise AuthenticationError(
            f"SALESFORCE_PRIVATE_KEY_FILE cannot sign the login ({type(error).__name__})",
            fix="set it to an RSA private key in PEM format",
        ) from error
    return Token(SecretStr(str(access)), url=str(instance))
