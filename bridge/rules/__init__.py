"""Rules: load rules.yaml, match events with it, render its templates, and plan deliveries.

    bridge.rules.load    load(source, path=..., registry=..., environ=...) -> LoadResult(rules or None, diagnostics)
    bridge.rules.files   read_rules_files(path) -> the files of a set of rules, as `source` of `load`
    bridge.rules.report  report(diagnostics, texts) -> str, and RulesError for callers that cannot continue
    bridge.rules.route   route(event, rules, now) -> Routing(planned deliveries, trace of every rule)
                         follow_up(event, rules, rule_name, delivery, now), alerts(event, rules, delivery, now)

The package is pure: it uses no clock, network or database. Apart from `files`, its only inputs are the files' texts
and the connectors.
"""
