"""The embedded default cluster: a real single-node Kubernetes without docker.

The Go side (``devcluster/cmd``, ``devcluster/internal``) is the node itself; this package is the
launcher: it builds, starts, fills and removes clusters. ``app`` is mounted as ``canarium cluster``.
"""
