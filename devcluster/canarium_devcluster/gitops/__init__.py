"""Git and Flux for a cluster on this machine: `canarium cluster gitops`, and the end-to-end tests of Flux.

Three processes' worth of parts: a git server (`git_server`), what offers its commits to Flux (`source`), and Flux's own
kustomize-controller (`flux` builds it, `controller` runs it). `session` puts them together for a user.

Argo CD is for the end-to-end tests alone: `argocd` builds it, `argocd_processes` runs it. `part` is
one process of either.
"""
