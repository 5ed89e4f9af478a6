"""Result renderer: renders the IDs that earlier actions returned into the params of a delivery."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from bridge.connector import Action, SerializeBy
from bridge.events import Event
from bridge.rules.counting import History
from bridge.rules.late import DETAILS, Results, has_params, render_late, using
from bridge.rules.model import Rules
from bridge.rules.route import concurrency_key
from bridge.store.deliveries import Delivery
from bridge.store.earlier_results import RenderedResults


@dataclass(frozen=True)
class ResultRenderer:
    """Renders results with the actions of this process and the active rules."""

    action_of: Callable[[Delivery], Action | None]
    rules: Rules
    now: datetime

    def __call__(
        self, delivery: Delivery, event: Event, results: Results, history: History
    ) -> RenderedResults | None:
        """Return the delivery's params with the results; None if this version does not have its action or a param.

        A param that uses details as well is rendered once those are there.
        """
        action = self.action_of(delivery)
        options = delivery.options
        if action is None or not has_params(action, options.late):
            return None
        late = using(DETAILS, options.late)
        rendered = render_late(
            action,
            json.loads(delivery.params),
            {name: value for name, value in options.late.items() if name not in late},
            event,
            {},
            self.rules,
            self.now,
            internal=options.internal,
            history=history,
            results=results,
            still_late=late,
        )
        key = delivery.concurrency_key
        if not isinstance(action.serialize_by, SerializeBy):
            conversation = delivery.conversation or ""
            key = concurrency_key(
                action, delivery.connection, event, conversation, delivery.recipient, rendered.values
            )
        return RenderedResults(rendered, late, key)
