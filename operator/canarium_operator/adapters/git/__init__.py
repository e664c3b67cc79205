"""`ports.GitWriter` over dulwich, in a process of its own (`process`): a server that hangs is left by killing it."""
