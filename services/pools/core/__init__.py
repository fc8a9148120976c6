"""Names and encodings of pools: no I/O."""
