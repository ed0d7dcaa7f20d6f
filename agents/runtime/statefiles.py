"""Names in a component's state directory that more than one program knows.

A daemon makes these files; the command line finds them there, also while the daemon is down.
Light on purpose: it imports nothing.
"""

__all__ = ["CONTROL", "LEDGER", "LOCK", "STATUS"]

LOCK = "lock"
"""Held by the process whose directory it is."""
LEDGER = "ledger"
"""The trust ledger, in two generations."""
STATUS = "status.json"
"""What the daemon has reported last."""
CONTROL = "control.sock"
"""Where a running client is asked for something."""
