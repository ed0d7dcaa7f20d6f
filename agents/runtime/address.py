"""Addresses of the network and of sockets, as an operator writes them."""

from dataclasses import dataclass
from typing import Self

__all__ = ["DEFAULT_PORT", "MAX_SOCKET_PATH", "HostPort"]

DEFAULT_PORT = 14172
"""The port of a server or zone server, where an address names none."""
MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """An address to dial or to listen on: a name or an IP address, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int = DEFAULT_PORT) -> Self:
        """Read "host", "host:port", "[IPv6]" or "[IPv6]:port".

        Raises:
            ValueError: It is none of these, or the port is not from 1 to 65535 (0 is allowed:
                a free port, for a listener).
        """
        host, port = text, ""
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f'address is {_quoted(text)}, expected "[IPv6]:port"')
            colon, port = rest[:1], rest[1:]
        elif text.count(":") > 1:
            raise ValueError(f'address is {_quoted(text)}, an IPv6 address is written "[...]:port"')
        else:
            host, colon, port = text.partition(":")
        if not host or any(char.isspace() or not char.isprintable() for char in host):
            raise ValueError(f'address is {_quoted(text)}, expected "host:port"')
        if not colon:
            return cls(host, default_port)
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            raise ValueError(f"port is {_quoted(port)}, expected a number from 0 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")
