"""Tests that stay valid however often one looks, in plain Python: what the gates rest on.

docs/explanation/evidence.md says in words what is computed here and why. Terms: an **e-value** is a number whose mean
is at most 1 while the canary is no worse than stable, so that it exceeds 1/alpha with chance at most alpha at *any* of
the looks (Ville's inequality, 1939); its logarithm is what is passed around. A **confidence sequence** is an interval
that holds at all looks together with chance 1 - alpha.
"""
