"""How a store comes from any older schema to this one; run by Alembic at every open."""
