"""Decisions about attempts, texts and credits, without I/O."""
