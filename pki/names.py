"""Who a certificate is for: role and id, in a URI of its subject alternative name.

    anchorline://<deployment, 32 hex digits>/<role>/<id, 32 hex digits>

The id is the component's: the first 16 bytes of its identity key's KeyID. A server's client CA
and message-signing key carry the id of the server, a zone server's client CA that of the zone
server: `client-ca/<responder id>` tells a client whose clients it belongs to.

One name has one text: lower case, nothing before or after it. Names are compared, so a second
spelling would be a second name.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from pki.errors import MalformedError

__all__ = ["DEPLOYMENT_BYTES", "ID_BYTES", "Name", "Role"]

DEPLOYMENT_BYTES: Final = 16
ID_BYTES: Final = 16


class Role(StrEnum):
    """What the holder of a certificate may be taken for."""

    # Enum's own is written in Python, and these are looked up at every link.
    __hash__ = str.__hash__

    SERVER = "server"
    HUB = "hub"
    ZONE_SERVER = "zone-server"
    CLIENT = "client"
    CLIENT_CA = "client-ca"
    MESSAGE_SIGNING = "message-signing"


_URI: Final = re.compile(
    rf"anchorline://(?P<deployment>[0-9a-f]{{32}})/(?P<role>{'|'.join(Role)})/(?P<id>[0-9a-f]{{32}})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Name:
    """One component, or one of its keys, of one deployment.

    Raises:
        ValueError: A deployment or id of another length than 16 bytes.
    """

    deployment: bytes
    role: Role
    id: bytes

    def __post_init__(self) -> None:
        if len(self.deployment) != DEPLOYMENT_BYTES or len(self.id) != ID_BYTES:
            raise ValueError(
                f"deployment of {len(self.deployment)} and id of {len(self.id)} bytes, "
                f"expected {DEPLOYMENT_BYTES} and {ID_BYTES}"
            )

    @property
    def uri(self) -> str:
        """The name as a certificate carries it."""
        return f"anchorline://{self.deployment.hex()}/{self.role}/{self.id.hex()}"

    @classmethod
    def parse(cls, uri: str) -> "Name":
        """Read a name.

        Raises:
            MalformedError: Another scheme, role, length or spelling.
        """
        found = _URI.fullmatch(uri)
        if found is None:
            raise MalformedError(f"not a name of a component: {uri[:120]!r}")
        return cls(
            _deployment(found["deployment"]), Role(found["role"]), bytes.fromhex(found["id"])
        )


# Of thousands of names that are kept all are of one or two.
@lru_cache(maxsize=16)
def _deployment(text: str) -> bytes:
    return bytes.fromhex(text)
