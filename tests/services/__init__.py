"""Real services for tests: each is started on a free port of 127.0.0.1, in a folder of its own, and ended again."""
