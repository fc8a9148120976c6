"""How the world provides what the router needs."""
