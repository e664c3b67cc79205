"""The inference server: takes one model from a file to batched, observed, drained serving over HTTP.

Layers, each looking down only: `app` > `rest` > `service` > `batching` > `backends`.
"""
