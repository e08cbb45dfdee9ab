"""The training loop and its collaborators, as plain objects and numbers."""
