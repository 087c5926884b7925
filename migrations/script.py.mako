"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""

from __future__ import annotations

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade(schema: str | None) -> None:
    ${upgrades if upgrades else "pass"}


def downgrade(schema: str | None) -> None:
    ${downgrades if downgrades else "pass"}
