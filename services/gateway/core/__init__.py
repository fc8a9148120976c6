"""What the gateway decides: no I/O, no clock, no event loop."""
