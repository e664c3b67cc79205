"""Outcomes of rollouts in git: which are due, what the tree shall hold, what is said of them. Pure."""
