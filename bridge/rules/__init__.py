"""Rules: load rules.yaml, match events with it, render its templates, and plan deliveries.

    bridge.rules.load    load(text, path=..., registry=..., environ=...) -> LoadResult(rules or None, diagnostics)
    bridge.rules.report  report(diagnostics, text, path) -> str, and RulesError for callers that cannot continue
    bridge.rules.route   route(event, rules, now) -> Routing(planned deliveries, trace of every rule)
                         follow_up(event, rules, rule_name, delivery, now), alerts(event, rules, delivery, now)

The package is pure: it uses no clock, network or database. Its only inputs are the file's text and the connectors.
"""
