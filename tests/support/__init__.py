"""Honest stand-ins for the ports of `agents`, which can also lie on request."""
