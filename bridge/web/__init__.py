"""HTTP side of the service: webhook, provider callbacks, unsubscribe links, metrics, API and dashboard."""
