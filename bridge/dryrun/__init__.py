"""Dry runs: try rules without contacting a provider, a database or the clock.

    bridge.dryrun.explain     explain(event, rules, now) -> why each rule fires or not, what would be done, and when
    bridge.dryrun.rule_tests  run_tests(rules) -> the results of the file's `tests:`, and their coverage
    bridge.dryrun.plan        plan(old, new, events) -> the deliveries that a change adds, removes and changes
    bridge.dryrun.simulator   the bridge in memory, with a clock of its own, on which the last two run

Every result is plain data with a `to_json()`. All decisions are made by `bridge.rules` and `bridge.policy`, as in the
service.
"""
