"""How the world provides what the cache needs."""
