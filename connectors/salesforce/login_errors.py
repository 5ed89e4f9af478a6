"""Errors of Salesforce's token endpoint and redirects: the cause in plain words, and the page of Setup to fix it on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from bridge.errors import AccountError, AuthenticationError, DeliveryError, RateLimited, TransientError

from . import sdk
from .my_domain import my_domain_of

APP_SETTINGS = "Setup, External Client App Manager, your app, Settings, OAuth Settings"
APP_POLICIES = "Setup, External Client App Manager, your app, Policies"


@dataclass(frozen=True)
class _Cause:
    """One cause of a rejected login."""

    errors: str
    """Pattern of OAuth's `error`."""
    description: str
    """Pattern of `error_description`, which tells causes with the same error apart."""
    detail: str
    fix: str
    credentials: bool = False
    """Whether a setting of the bridge is wrong, rather than the org."""


_CAUSES = (
    _Cause(
        "invalid_client_id|invalid_client|invalid_grant",
        r"client identifier invalid|consumer key|^$",
        "the org has no external client app with this consumer key",
        f"copy SALESFORCE_CONSUMER_KEY from {APP_SETTINGS}, Consumer Key and Secret; a new app works after up to 10 "
        "minutes, and a sandbox does not know an app that was created in production after its last refresh",
        credentials=True,
    ),
    _Cause(
        "invalid_client|invalid_client_credentials|invalid_grant",
        "client (credentials|secret)( is)? invalid|invalid client (credentials|secret)",
        "the consumer secret is wrong",
        f"copy SALESFORCE_CONSUMER_SECRET from {APP_SETTINGS}, Consumer Key and Secret",
        credentials=True,
    ),
    _Cause(
        ".*",
        "no client credentials user",
        "the external client app has no user to run as",
        f"enter the username (not the email address) of the integration user in {APP_POLICIES}, OAuth Flows and "
        "External Client App Enhancements, Enable Client Credentials Flow, Run As",
    ),
    _Cause(
        "unauthorized_client|unsupported_grant_type|invalid_grant|invalid_client",
        "client credentials flow|grant type",
        "the external client app does not allow this OAuth flow",
        f"select Enable Client Credentials Flow in {APP_SETTINGS}, Flow Enablement, and in {APP_POLICIES}; for "
        "SALESFORCE_PRIVATE_KEY_FILE select Enable JWT Bearer Flow and upload the certificate",
    ),
    _Cause(
        "invalid_app_access|invalid_grant|access_denied|OAUTH_APP_ACCESS_DENIED",
        "not admin approved|hasn't approved|not approved|app access",
        "the integration user may not use the external client app",
        f"in {APP_POLICIES}, App Policies, select a profile or permission set of the integration user, and under "
        "OAuth Policies set Permitted Users to Admin approved users are pre-authorized",
    ),
    _Cause(
        "app_not_found|OAUTH_EC_APP_NOT_FOUND|invalid_client_id",
        "not installed",
        "the external client app belongs to another org",
        "create the external client app in the org of SALESFORCE_URL, or set SALESFORCE_URL to the org that has it",
        credentials=True,
    ),
    _Cause(
        "invalid_grant|inactive_user",
        "inactive user|user is inactive|frozen|locked|^$",
        "the integration user is inactive, frozen or locked out",
        "open the user in Setup, Users: select Active, Unfreeze or Unlock",
    ),
    _Cause(
        "inactive_org|invalid_grant",
        "organization|inactive org|^$",
        "the org is inactive or locked",
        "log in to the org in a browser: a trial may have ended, or Salesforce may have suspended the org",
    ),
    _Cause(
        ".*",
        r"ip[ _]restricted|\bip\b",
        "Salesforce does not allow logins from the IP address of this host",
        f"in {APP_POLICIES}, OAuth Policies, set IP Relaxation to Relax IP restrictions, or add the address to the "
        "login IP ranges of the integration user's profile",
    ),
    _Cause(
        ".*",
        "login hours",
        "the integration user may not log in at this time",
        "remove the login hours from the integration user's profile",
    ),
    _Cause(
        ".*",
        "not supported on this domain",
        "SALESFORCE_URL is not the org's My Domain URL",
        "set SALESFORCE_URL to the Current My Domain URL in Setup, My Domain",
        credentials=True,
    ),
    _Cause(
        ".*",
        "scope",
        "the external client app has no scope for the API",
        f"add the scope Manage user data via APIs (api) in {APP_SETTINGS}, OAuth Scopes",
    ),
    _Cause(
        "invalid_grant|invalid_assertion|invalid_request",
        "audience",
        "SALESFORCE_URL and the integration user belong to different kinds of org, production and sandbox",
        "set SALESFORCE_URL to the My Domain of the user's org; a sandbox's contains .sandbox.",
        credentials=True,
    ),
    _Cause(
        "invalid_grant|invalid_assertion",
        "expired|assertion",
        "Salesforce does not accept the signed login",
        "set the clock of this host; then check that SALESFORCE_PRIVATE_KEY_FILE belongs to the certificate in "
        f"{APP_SETTINGS}, Enable JWT Bearer Flow, and SALESFORCE_USERNAME to a user of this org",
        credentials=True,
    ),
)
_TRANSIENT_ERRORS = ("server_error", "temporarily_unavailable", "unknown_error")


def login_failure(error: sdk.SalesforceAuthenticationFailed) -> DeliveryError:
    """Return the error for a rejected login. Only known words are repeated: descriptions may contain anything."""
    code, description = str(error.code), error.auth_message.strip()
    if code in ("login_rate_exceeded", "rate_limit_exceeded") or "rate exceeded" in description:
        return RateLimited("Salesforce's limit for logins is exceeded", retry_after=timedelta(minutes=1))
    if code in _TRANSIENT_ERRORS:
        return TransientError(f"Salesforce's login answered {code}")
    if isinstance(error.code, int):
        return _not_the_token_endpoint(error.code)
    for cause in _CAUSES:
        if re.fullmatch(cause.errors, code) and re.search(cause.description, description, re.IGNORECASE):
            kind = AuthenticationError if cause.credentials else AccountError
            return kind(f"Salesforce rejects the login ({code}): {cause.detail}", fix=cause.fix)
    return AuthenticationError(
        f"Salesforce rejects the login ({code}): {description[:100]}",
        fix="the reason is in Setup, Login History, of the integration user",
    )


def _not_the_token_endpoint(status: int) -> DeliveryError:
    """Return the error for a response that is not JSON."""
    if status < 400:
        return TransientError(
            f"the response to the login ({status}) is not Salesforce's: check for a proxy in between"
        )
    return AuthenticationError(
        f"the login answered {status} without a reason", fix="is SALESFORCE_URL the org's My Domain URL?"
    )


def redirect_failure(location: str | None) -> DeliveryError:
    """Return the error for a redirect, which the bridge does not follow: it would send the secret to another host."""
    try:
        host = (urlsplit(location or "").hostname or "").lower()
    except ValueError:
        host = ""
    other = my_domain_of(host)
    my_domain = host if host.endswith(".my.salesforce.com") else other[0] if other else ""
    if my_domain:
        return AccountError(
            f"SALESFORCE_URL leads to {host}: the org's My Domain was renamed or moved",
            fix=f"set SALESFORCE_URL to https://{my_domain}",
        )
    return TransientError(
        f"SALESFORCE_URL leads to {host or 'another page'} instead of the org's API: check that it is the Current My "
        "Domain URL in Setup, My Domain; then check for a proxy in between and for maintenance (status.salesforce.com)"
    )
