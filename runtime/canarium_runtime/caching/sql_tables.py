"""The two tables of `SqlLevel`; another form of theirs gets another number in the names (docs/adr/0019)."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table

METADATA: Final = MetaData()
ANSWERS: Final = Table(
    "canarium_answers_1",
    METADATA,
    Column("key", LargeBinary, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # With the size in it, what the table holds is counted from the index alone.
    Index("canarium_answers_1_expires", "expires_at", "size"),
)
SWEEP: Final = Table(
    "canarium_answers_1_sweep",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("next_at", BigInteger, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
