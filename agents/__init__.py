"""The programs of a deployment, and all that touches the outside world."""
