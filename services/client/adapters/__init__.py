"""One module per transport."""
