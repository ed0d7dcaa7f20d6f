"""Issues have no index of their holders.

Holders come in no order, so each issue rewrote a page of it. What is asked of holders, at each HEAD
and each decision on one, is found in milliseconds among all that is not over.
"""

from alembic import op

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_issued_holder", "issued")
