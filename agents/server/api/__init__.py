"""The administration API of a server: HTTP over a Unix socket."""
