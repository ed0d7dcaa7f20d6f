"""The zone server: a responder in the DMZ, with a client CA, no root, and no way inwards."""
