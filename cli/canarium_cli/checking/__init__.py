"""Checks of manifests without a cluster: what `canarium check` says, as findings with file, line and field.

`documents` reads YAML with the place of each field, `kustomizing` and `sources` find what is applied together,
`judging` says what is wrong with objects (by `cel`, `canarium_api.kstatus` and the operator's own core), `report`
writes it down. Nothing here asks a cluster or the network; kustomize may, where a kustomization names a remote base.
"""
