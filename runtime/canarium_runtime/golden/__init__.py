"""A model on golden data, before any traffic: metrics, latency, data quality, drift, and agreement with an old version.

`table` reads files, `layout` fits their columns to the model, `answers` reads what the model gives, `scores` and
`profile` are arithmetic, `evaluation` runs it all through the real backend in bounded memory, `judging` holds the
thresholds against it. Nothing here is used by a server.
"""
