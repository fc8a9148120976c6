"""How the world provides what the rate limiter needs."""
