"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("wish", sa.Text(), nullable=False),
        sa.Column("key", sa.String(256)),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Float(), nullable=False),
        sa.Column("cost", sa.Float(), nullable=False),
        sa.Column("batch", sa.String(16), nullable=False),
        sa.Column("passed", sa.Float(), nullable=False),
        sa.Column("pictures", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(64)),
        sa.Column("beat", sa.Integer(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("started", sa.Float()),
        sa.Column("finished", sa.Float()),
        sa.Column("error", sa.Text()),
        sa.Column("fault", sa.String(12)),
        sa.Column("result", sa.Text()),
        sa.PrimaryKeyConstraint("number", name="pk_jobs"),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
        sa.UniqueConstraint("owner", "key", name="uq_jobs_owner"),
    )
    op.create_index("ix_jobs_next", "jobs", ["state", "priority", "turn", "number"])
    op.create_index("ix_jobs_turn", "jobs", ["turn"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(128), nullable=False),
        sa.Column("jobs", sa.Integer()),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("revoked", sa.Float()),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
    )
    op.create_table(
        "uploads",
        sa.Column("file", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("seen", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("file", "owner", name="pk_uploads"),
    )
    op.create_table(
        "outputs",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("file", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("seed", sa.String(20), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("licence", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("seen", sa.LargeBinary()),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name="fk_outputs_job", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number", name="pk_outputs"),
        sa.UniqueConstraint("id", name="uq_outputs_id"),
        sa.UniqueConstraint("job", "place", name="uq_outputs_job"),
    )
    op.create_index("ix_outputs_file", "outputs", ["file"])
    op.create_index("ix_outputs_owner", "outputs", ["owner"])
    op.create_table(
        "inputs",
        sa.Column("output", sa.String(32), nullable=False),
        sa.Column("file", sa.String(64), nullable=False),
        sa.Column("how", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(
            ["output"], ["outputs.id"], name="fk_inputs_output", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("output", "file", name="pk_inputs"),
    )
    op.create_index("ix_inputs_file", "inputs", ["file"])
    op.create_table(
        "canvases",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_canvases"),
    )
    op.create_index("ix_canvases_owner", "canvases", ["owner"])
    op.create_table(
        "boards",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_boards"),
        sa.UniqueConstraint("owner", "name", name="uq_boards_owner"),
    )
    op.create_table(
        "board_outputs",
        sa.Column("board", sa.String(32), nullable=False),
        sa.Column("output", sa.String(32), nullable=False),
        sa.Column("added", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["board"], ["boards.id"], name="fk_board_outputs_board", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["output"], ["outputs.id"], name="fk_board_outputs_output", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("board", "output", name="pk_board_outputs"),
    )
    op.create_table(
        "favourites",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("output", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(
            ["output"], ["outputs.id"], name="fk_favourites_output", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner", "output", name="pk_favourites"),
    )


def downgrade() -> None:
    for table in ("favourites", "board_outputs", "boards", "inputs"):
        op.drop_table(table)
    for table in ("outputs", "jobs", "uploads", "tokens", "canvases"):
        op.drop_table(table)
