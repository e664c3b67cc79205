"""The operator: keeps what runs in the cluster equal to what ModelDeployments ask for, one safe step at a time."""
