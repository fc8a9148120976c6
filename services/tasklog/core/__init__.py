"""Decisions about logs, attempts and readers, without I/O."""
