"""Peers of the bridge that do the same job: receive a signed event, answer, and do the work later.

Each module of this package is one peer: `app` receives, `work()` does the jobs. They run in an environment of their own
(`requirements.txt`) and import nothing of the bridge. `python -m bench.peers` measures all that are installed.
"""

MARK_SIZE = 16
"""Bytes that each job which was done adds to a file: they tell which event it was about."""
