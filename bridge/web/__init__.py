"""What the service answers over HTTP: events, callbacks, links in mails, metrics, the API and the log page."""
