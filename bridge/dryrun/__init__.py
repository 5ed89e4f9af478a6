"""Rules tried without effects: nothing here touches a partner, a database or the clock.

    bridge.dryrun.explain   explain(event, rules, now) -> why each rule fires or not, what would be done, and when
    bridge.dryrun.rule_tests      run_tests(rules) -> what the file's `tests:` expect against what happens, and coverage
    bridge.dryrun.plan      plan(old, new, events) -> the deliveries that a change adds, removes and changes
    bridge.dryrun.simulator  the bridge in memory, with a clock of its own, that the last two run on

Everything returns plain data with a `to_json()`. The decisions are those of `bridge.rules` and `bridge.policy`, the
same that the service makes.
"""
