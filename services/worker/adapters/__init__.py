"""Engines, prompts and live frames, as the world provides them."""
