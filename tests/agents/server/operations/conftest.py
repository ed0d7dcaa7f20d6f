"""What an administrator may ask of a server."""

import pytest

from agents.server.app import Server
from agents.server.operations import ServerOperations


@pytest.fixture
def operations(server: Server) -> ServerOperations:
    return ServerOperations(server)
