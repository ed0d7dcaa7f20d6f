"""Bytes, TLS, frames and messages of a link, without I/O."""
