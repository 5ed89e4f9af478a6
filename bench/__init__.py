"""`make bench`: benchmarks as ratios to baselines of the same run."""
