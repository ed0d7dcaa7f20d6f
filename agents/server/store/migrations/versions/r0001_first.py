"""The first schema: settings, activity, approvals, issues, clients, acks, bundles."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
)

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None

_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")


def upgrade() -> None:
    """Build every table of the first schema."""
    _administration()
    _certificates()
    _fleet()
    _bundles()


def _administration() -> None:
    op.create_table(
        "setting",
        Column("name", Text, nullable=False),
        Column("value", Text, nullable=False),
        Column("setting_type", Text, nullable=False),
        Column("value_type", Text, nullable=False),
        Column("changed_by", Text, nullable=False),
        Column("changed_at", BigInteger, nullable=False),
        Column("revision", BigInteger, nullable=False),
        PrimaryKeyConstraint("name", name="pk_setting"),
    )
    op.create_table(
        "activity",
        Column("seq", _SEQUENCE, autoincrement=True, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("actor", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("details", Text, nullable=False),
        Column("salt", LargeBinary),
        Column("hash", LargeBinary),
        PrimaryKeyConstraint("seq", name="pk_activity"),
    )
    op.create_index("ix_activity_hash", "activity", ["hash"])
    op.create_index("ix_activity_action", "activity", ["action"])
    op.create_table(
        "approval",
        Column("identity", LargeBinary, nullable=False),
        Column("role", Text, nullable=False),
        Column("host", Text, nullable=False),
        Column("address", Text, nullable=False),
        Column("first_seen", BigInteger, nullable=False),
        Column("last_seen", BigInteger, nullable=False),
        Column("state", Text, nullable=False),
        Column("decided_by", Text),
        Column("decided_at", BigInteger),
        Column("reason", Text, nullable=False),
        PrimaryKeyConstraint("identity", name="pk_approval"),
    )
    op.create_table(
        "approval_event",
        Column("seq", _SEQUENCE, autoincrement=True, nullable=False),
        Column("identity", LargeBinary, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("actor", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("host", Text, nullable=False),
        Column("address", Text, nullable=False),
        Column("reason", Text, nullable=False),
        PrimaryKeyConstraint("seq", name="pk_approval_event"),
        ForeignKeyConstraint(
            ["identity"], ["approval.identity"], name="fk_approval_event_identity"
        ),
    )
    op.create_index("ix_approval_event_identity", "approval_event", ["identity"])


def _certificates() -> None:
    op.create_table(
        "issued",
        Column("issuer", LargeBinary, nullable=False),
        Column("serial", LargeBinary, nullable=False),
        Column("kind", Text, nullable=False),
        Column("holder", LargeBinary, nullable=False),
        Column("key_id", LargeBinary, nullable=False),
        Column("root", LargeBinary, nullable=False),
        Column("not_before", BigInteger, nullable=False),
        Column("not_after", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("issuer", "serial", name="pk_issued"),
    )
    op.create_index("ix_issued_holder", "issued", ["holder"])
    op.create_index("ix_issued_not_after", "issued", ["not_after"])
    op.create_table(
        "issuer_count",
        Column("issuer", LargeBinary, nullable=False),
        Column("kind", Text, nullable=False),
        Column("signed", BigInteger, nullable=False),
        PrimaryKeyConstraint("issuer", name="pk_issuer_count"),
    )


def _fleet() -> None:
    op.create_table(
        "client",
        Column("id", LargeBinary, nullable=False),
        Column("host", Text, nullable=False),
        Column("claimed", Text, nullable=False),
        Column("seen", Text, nullable=False),
        Column("port", Integer, nullable=False),
        Column("protocol", Integer, nullable=False),
        Column("version", Text, nullable=False),
        Column("last_registration", BigInteger),
        Column("key_not_after", BigInteger),
        Column("root", LargeBinary),
        Column("responder", LargeBinary, nullable=False),
        Column("token_out", LargeBinary),
        Column("token_shown", LargeBinary),
        Column("lost_at", BigInteger),
        Column("first_seen", BigInteger, nullable=False),
        PrimaryKeyConstraint("id", name="pk_client"),
    )
    op.create_table(
        "ack",
        Column("component", LargeBinary, nullable=False),
        Column("slot", LargeBinary, nullable=False),
        Column("n", BigInteger, nullable=False),
        Column("entry_id", LargeBinary, nullable=False),
        Column("spki", LargeBinary, nullable=False),
        Column("signature", LargeBinary, nullable=False),
        Column("role", Text, nullable=False),
        Column("credentials", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("component", "slot", name="pk_ack"),
    )


def _bundles() -> None:
    op.create_table(
        "bundle",
        Column("digest", LargeBinary, nullable=False),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("content", LargeBinary, nullable=False),
        PrimaryKeyConstraint("digest", name="pk_bundle"),
    )
    op.create_table(
        "bundle_export",
        Column("seq", _SEQUENCE, autoincrement=True, nullable=False),
        Column("digest", LargeBinary, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("actor", Text, nullable=False),
        PrimaryKeyConstraint("seq", name="pk_bundle_export"),
        ForeignKeyConstraint(["digest"], ["bundle.digest"], name="fk_bundle_export_digest"),
    )
    op.create_index("ix_bundle_export_digest", "bundle_export", ["digest"])
