"""The server: the root's keeper, one responder of its own, and the only store."""
