"""Talk to a gateway from the command line."""
