"""How the world provides what the gateway needs."""
