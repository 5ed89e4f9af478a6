"""`make bench`: speed by ratio to baselines of the same run."""
