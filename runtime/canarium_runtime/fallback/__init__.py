"""Who answers when the model does not (docs/howto/fall-back.md)."""
