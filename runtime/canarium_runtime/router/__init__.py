"""The router of a sticky A/B test: sends each user's requests to the same version, by a hash of a key.

    assignment   who gets which version                          pure
    forwarding   one request to one version, streamed both ways  asyncio
    app          ASGI: assignment and forwarding of one request
    __main__     settings, signals, drain

It keeps nothing: what the split is comes with each request, in a header that the route sets (`canarium_api.split`).
It does not look into bodies, and does not balance: that is done by the Services behind it.
"""
