"""Connections that stay: `/v1/ws`, one session each, and two ways to carry it."""
