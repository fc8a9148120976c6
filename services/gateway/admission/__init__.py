"""From a prompt to its acknowledgment, the same for all transports."""
