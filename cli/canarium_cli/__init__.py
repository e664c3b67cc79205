"""The `canarium` command: the operator, the development cluster and the demo under one name."""
