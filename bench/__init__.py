"""`make bench`: benchmarks as ratios to baselines of the same run."""

import sys

import connectors

sys.modules["bridge_connectors"] = connectors  # the name by which the bridge imports the shipped connectors
