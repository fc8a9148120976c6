"""How the world provides what the dispatcher needs."""
