"""Rules tried without effects: nothing here touches a partner, a database or the clock.

    bridge.rehearsal.explain   explain(event, rules, now) -> why each rule fires or not, what would be done, and when
    bridge.rehearsal.test      run_tests(rules) -> what the file's `tests:` expect against what happens, and coverage
    bridge.rehearsal.plan      plan(old, new, events) -> the deliveries that a change adds, removes and changes
    bridge.rehearsal.simulate  the bridge in memory, with a clock of its own, that the last two run on

Everything returns plain data with a `to_json()`. The decisions are those of `bridge.rules` and `bridge.policy`, the
same that the service makes.
"""
