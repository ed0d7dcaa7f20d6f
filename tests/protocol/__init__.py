"""Tests of the links: bytes, TLS, frames, messages."""
