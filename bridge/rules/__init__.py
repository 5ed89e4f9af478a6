"""rules.yaml: load it, match events with it, render what it says, route.

    bridge.rules.load    load(text, path=..., registry=..., environ=...) -> Loaded(rules or None, every problem)
    bridge.rules.report  report(problems, text, path) -> str, and RulesError for those who cannot go on
    bridge.rules.route   route(event, rules, now) -> Routing(deliveries to make, trace of every rule)
                         follow_up(event, rules, rule_name, delivery, now), alerts(event, rules, delivery, now)

All of it is pure: no clock, no network, no database; what it reads is the file's text and the connectors.
"""
