"""The responder: the part that faces clients, the same in a server and in a zone server."""
