"""What an administrator may ask of a server, each as one call (J6).

The HTTP API and, behind it, the command line and a console call these and nothing else. Every
change names its actor, is written to the activity log before it happens, and goes through the
same rooms as what the server does by itself. One noun a file; `ServerOperations` is all of them.
"""

from agents.server.operations.approvals import ApprovalOperations
from agents.server.operations.bundles import BundleOperations
from agents.server.operations.clients import ClientOperations
from agents.server.operations.roots import RootOperations
from agents.server.operations.settings import SettingOperations
from agents.server.operations.status import StatusOperations

__all__ = ["ServerOperations"]


class ServerOperations(
    RootOperations,
    ApprovalOperations,
    ClientOperations,
    BundleOperations,
    SettingOperations,
    StatusOperations,
):
    """The operations of one server; changes run one after the other."""
