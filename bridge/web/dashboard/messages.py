"""The messages after an action. The URL of the page names the message; a text from the URL is never shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


class Number(int):
    """A number for a message: `{n}` is `1,234`, and `{n:delivery|deliveries}` the word that fits the number."""

    def __format__(self, spec: str) -> str:
        """Return the number, or the word for one or for several."""
        singular, _, plural = spec.partition("|")
        if not spec:
            return f"{int(self):,}"
        return singular if self == 1 else plural


DONE: Final[Mapping[str, str]] = {
    "cancelled": "The delivery was cancelled.",
    "retried": "The delivery will be retried now, or as soon as its connection allows.",
    "delivered": "The delivery was marked as delivered.",
    "resent": "The delivery will be sent again.",
    "dismissed": "The failure was dismissed. It stays in the list of failed deliveries.",
    "undismissed": "The dismissal was undone.",
    "retried_many": "{n} {n:delivery|deliveries} will be retried now, or as soon as the connection allows.",
    "cancelled_many": "{n} {n:delivery was|deliveries were} cancelled.",
    "dismissed_many": "{n} {n:failure was|failures were} dismissed.",
    "undismissed_many": "{n} {n:dismissal was|dismissals were} undone.",
    "delivered_many": "{n} {n:delivery was|deliveries were} marked as delivered.",
    "resent_many": "{n} {n:delivery|deliveries} will be sent again.",
    "discarded_many": "{n} {n:delivery was|deliveries were} discarded and will not be sent.",
    "discarded": "The delivery was discarded and will not be sent.",
    "replayed": "The event was routed again.",
    "replayed_many": "{n} {n:event was|events were} routed again.",
    "accepted": "The request was accepted as an event.",
    "duplicate_dismissed": "The pair was dismissed.",
    "rule_rerendered": "{n} {n:delivery was|deliveries were} rendered again with the active version of the rule.",
    "rule_cancelled": "{n} waiting {n:delivery was|deliveries were} cancelled.",
    "connection_paused": "The connection was paused.",
    "connection_resumed": "The connection was resumed.",
    "connection_probed": "The connection is tried now.",
    "account_works": "The account works. The result of the check is below.",
    "account_fails": "The check found a problem with the account. See the result below.",
    "stopped": "Sending was stopped.",
    "started": "Sending was started again.",
    "started_without_old": "{n} {n:delivery was|deliveries were} cancelled, and sending was started again.",
    "opted_out": "The opt-out was saved. A message that was already being sent is not recalled.",
    "opted_in": "The opt-out was removed.",
    "imported": "{n} {n:address was|addresses were} opted out.",
    "erased": "The contact was erased from {n} {n:row|rows}.",
    "erased_in_part": "The contact was erased from {n} {n:row|rows}. A delivery is running: erase again in a minute.",
    "settings_saved": "Your settings were saved.",
}
"""Text for each action that was done. `{n}` is a number from the URL, see `Number`."""

REFUSED: Final[Mapping[str, str]] = {
    "delivery_changed": "Nothing was changed: the state of the delivery no longer allows this.",
    "nothing_chosen": "Nothing was changed: choose deliveries in the list first.",
    "too_many": "Nothing was changed: more than 10,000 deliveries match. Narrow the filter, for example by time.",
    "wrong_number": "Nothing was sent: the number that you typed is not the number of deliveries.",
    "expired": "Nothing was changed: the delivery has expired.",
    "replay_not_possible": "The event was not routed again: its body is no longer kept, it has not been routed yet, or "
    "another event about the same call was.",
    "replayed_meanwhile": "Nothing was done: an operator replayed this after you opened the page. See the audit log.",
    "not_previewed": "Nothing was done: check what would happen first.",
    "too_many_events": "Nothing was done: more than 10,000 events match. Narrow the filter, for example by time.",
    "too_many_forced": "Nothing was done: people can be contacted again for at most 500 events. Narrow the filter.",
    "accept_not_possible": "The request cannot be accepted as an event, or was accepted already.",
    "ending_wrong": "Nothing was erased: the characters that you typed do not match.",
    "circuit_closed": "Nothing was changed: the connection responds, or is paused for another reason.",
    "no_account": "The account was not checked: this process does not have it. Run bridge check --online.",
    "reason_missing": "Nothing was changed: enter a reason.",
    "not_stopped": "Sending was not stopped, so nothing was changed.",
    "too_many_to_cancel": "Nothing was changed: too many deliveries wait to be cancelled together. Use the list.",
    "unknown_zone": "Nothing was changed: choose a time zone from the list.",
}
"""Text for each action that was not possible."""
