"""How the world provides what the operator asks for."""
