"""Dry runs: try rules without contacting a provider, and without waiting.

    bridge.dryrun.explain     explain(event, rules, now) -> why each rule fires or not, what would be done, and when
    bridge.dryrun.rule_tests  run_tests(rules) -> the results of the file's `tests:`, and their coverage
    bridge.dryrun.plan        plan(old, new, events) -> the deliveries that a change adds, removes and changes
    bridge.dryrun.engine      the service's engine on a temporary database, on which rule tests run
    bridge.dryrun.simulator   a fast simulation in memory, on which plans run; providers accept everything

Every result is plain data with a `to_json()`. All decisions are made by `bridge.rules` and `bridge.policy`, as in the
service.
"""
