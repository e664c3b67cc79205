"""Rollouts without a cluster: the live engine on recorded metrics."""
