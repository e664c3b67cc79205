"""All decisions, as pure functions: no IO, no clock, no chance. Import contracts hold that."""
