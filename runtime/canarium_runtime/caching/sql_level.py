"""`SqlLevel`: a table in SQLite or PostgreSQL, which many servers share.

Needs the package `sqlalchemy`, and `aiosqlite` or `asyncpg` (docs/adr/0019).

    answers            key, value, size (with what the row costs), expires_at (seconds since 1970)
    answers_sweep      one row: when the table is swept next, and what it held after the last time

Whoever finds the sweep due moves its time on in one statement and thereby has it; all others leave it alone. Servers
never wait for each other in a circle: rows are written in the order of their keys, one statement to a transaction, and
on PostgreSQL the sweep passes over rows that somebody holds.
"""

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import bindparam, delete, event, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from canarium_runtime.caching.levels import Contents, Entry, LevelError
from canarium_runtime.caching.sql_tables import ANSWERS, METADATA, SWEEP

T = TypeVar("T")

ROW_BYTES: Final = 200
"""What a row costs beside its value: key, numbers, two indexes."""
SWEEP_SECONDS: Final = 30
"""How often the table is swept, however many servers there are."""
_SWEEP_ROWS: Final = 1000
_SWEEP_STEPS: Final = 200
"""A sweep deletes at most so many times so many rows; the rest is for the next one."""
_FULL_PERCENT: Final = 90
"""A table that is too large is brought down to this share of its bound, so that not every sweep has to."""
_OPEN_ATTEMPTS: Final = 4
_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_PARAMETERS: Final = {"ssl", "sslmode", "prepared_statement_cache_size"}
"""What may stand behind the `?` of a URL; the driver would refuse others only when it connects."""

_LOOKUP: Final = select(ANSWERS.c.key, ANSWERS.c.value).where(
    ANSWERS.c.key.in_(bindparam("keys", expanding=True)),
    ANSWERS.c.expires_at > bindparam("now"),
)


class SqlLevel:
    """See the module.

    Args:
        url: `sqlite:////path` or `postgresql://user:password@host/database`.
        max_bytes: most that the table may hold; until the next sweep it may be more.
        connections: how many calls run at once.
        connect_seconds: longest time to connect.
        clock: seconds since 1970.

    Raises:
        ValueError: the URL cannot be read, or names another database.
    """

    def __init__(
        self,
        url: str,
        *,
        max_bytes: int,
        connections: int,
        connect_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        address = _address(url)
        self._max_bytes = max_bytes
        self._connections = connections
        self._clock = clock
        self._postgresql = address.get_backend_name() == "postgresql"
        timeout = {"timeout": connect_seconds} if self._postgresql else {"timeout": 5.0}
        self._engine: AsyncEngine = create_async_engine(
            address,
            poolclass=AsyncAdaptedQueuePool,
            pool_size=connections,
            max_overflow=connections,  # those that are being given up after a timeout still count
            pool_timeout=connect_seconds,
            isolation_level="AUTOCOMMIT",  # each statement is a transaction, and saves two round trips
            connect_args=timeout,
            pool_reset_on_return=None,  # there is never a transaction to roll back
            hide_parameters=True,
        )
        if not self._postgresql:
            event.listen(self._engine.sync_engine, "connect", _tune_sqlite)
        insert = postgresql.insert(ANSWERS) if self._postgresql else sqlite.insert(ANSWERS)
        self._upsert = insert.on_conflict_do_update(
            index_elements=["key"],
            set_={name: insert.excluded[name] for name in ("value", "size", "expires_at")},
        )

    async def open(self) -> None:
        """Connect, and make the tables if they are not there."""
        if not self._postgresql and self._engine.url.database:
            with contextlib.suppress(OSError):  # connecting says so in its turn
                Path(self._engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(_OPEN_ATTEMPTS):
            try:
                await self._translated(self._open())
            except LevelError:
                # The first attempt finds the connections that died meanwhile; and of two servers that make the same
                # table at once one fails, and then it is there.
                if attempt == _OPEN_ATTEMPTS - 1:
                    raise
            else:
                return

    async def _open(self) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(self._connections):
                connection = await stack.enter_async_context(self._engine.connect())
                await connection.execute(text("SELECT 1"))
            await connection.run_sync(METADATA.create_all)
            insert = postgresql.insert(SWEEP) if self._postgresql else sqlite.insert(SWEEP)
            row = {"id": 1, "next_at": 0, "entries": 0, "bytes": 0}
            await connection.execute(insert.values(row).on_conflict_do_nothing())

    async def read(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """SELECT by primary key."""

        async def work(connection: AsyncConnection) -> Mapping[bytes, bytes]:
            found = await connection.execute(
                _LOOKUP, {"keys": _padded(keys), "now": int(self._clock())}
            )
            return {bytes(key): bytes(value) for key, value in found}

        return await self._run(work)

    async def write(self, entries: Sequence[Entry]) -> None:
        """INSERT, or UPDATE where there is one."""
        now = self._clock()
        rows = {
            entry.key: {
                "key": entry.key,
                "value": entry.value,
                "size": len(entry.value) + ROW_BYTES,
                "expires_at": int(now + entry.ttl_seconds),
            }
            for entry in entries
        }

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(self._upsert, [rows[key] for key in sorted(rows)])

        await self._run(work)

    async def sweep(self) -> Contents | None:
        """Delete what is over, then what ends first while there is too much; if it is not due, only tell the counts."""
        return await self._run(self._sweep)

    async def _sweep(self, connection: AsyncConnection) -> Contents | None:
        now = int(self._clock())
        due = await connection.execute(
            update(SWEEP).where(SWEEP.c.next_at <= now).values(next_at=now + SWEEP_SECONDS)
        )
        if due.rowcount:
            contents = await self._shrink(connection, now)
            await connection.execute(
                update(SWEEP).values(entries=contents.entries, bytes=contents.bytes)
            )
            return contents
        row = (await connection.execute(select(SWEEP.c.entries, SWEEP.c.bytes))).first()
        return Contents(row.entries, row.bytes) if row is not None else None

    async def _shrink(self, connection: AsyncConnection, now: int) -> Contents:
        steps = _SWEEP_STEPS
        while steps > 0:
            steps -= 1
            if len(await self._delete(connection, ANSWERS.c.expires_at <= now)) < _SWEEP_ROWS:
                break
        contents = await self._count(connection)
        if contents.bytes <= self._max_bytes:
            return contents
        surplus = contents.bytes - self._max_bytes * _FULL_PERCENT // 100
        while steps > 0 and surplus > 0:
            steps -= 1
            sizes = await self._delete(connection, None, surplus)
            if not sizes:
                break
            surplus -= sum(sizes)
        return await self._count(connection)

    async def _count(self, connection: AsyncConnection) -> Contents:
        counted = await connection.execute(
            select(func.count(), func.coalesce(func.sum(ANSWERS.c.size), 0)).select_from(ANSWERS)
        )
        entries, total = counted.one()
        return Contents(entries, int(total))

    async def _delete(
        self, connection: AsyncConnection, condition: Any, surplus: int | None = None
    ) -> Sequence[int]:
        """Delete some rows, those that end first; with a surplus, no more than it takes. Gives their sizes."""
        chosen = select(ANSWERS.c.key, ANSWERS.c.size).order_by(ANSWERS.c.expires_at)
        if condition is not None:
            chosen = chosen.where(condition)
        chosen = chosen.limit(_SWEEP_ROWS)
        rows = (await connection.execute(chosen)).all()
        keys = []
        for key, size in rows:
            if surplus is not None and surplus <= 0:
                break
            keys.append(key)
            surplus = surplus - size if surplus is not None else None
        if not keys:
            return []
        doomed = select(ANSWERS.c.key).where(ANSWERS.c.key.in_(keys))
        if self._postgresql:
            doomed = doomed.with_for_update(skip_locked=True)
        deleted = await connection.execute(
            delete(ANSWERS).where(ANSWERS.c.key.in_(doomed)).returning(ANSWERS.c.size)
        )
        return [size for (size,) in deleted]

    async def close(self) -> None:
        """Close all connections."""
        await self._translated(self._engine.dispose())

    async def _run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async def connected() -> T:
            async with self._engine.connect() as connection:
                return await work(connection)

        return await self._translated(connected())

    async def _translated(self, call: Awaitable[T]) -> T:
        """Await a call, and say what went wrong without the library's words, which may hold address and values."""
        try:
            return await call
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            cause = getattr(error, "orig", None) or error
            msg = f"database: {type(cause.__cause__ or cause).__name__}"
            raise LevelError(msg) from error


def _address(url: str) -> URL:
    """Read a URL, and name the driver."""
    try:
        address = make_url(url)
    except ArgumentError:
        msg = "not a URL of a database"
        raise ValueError(msg) from None  # the original quotes the URL
    driver = _DRIVERS.get(address.drivername)
    if driver is None:
        msg = f"expected one of {', '.join(f'{name}://' for name in _DRIVERS)}"
        raise ValueError(msg)
    if not address.database:
        msg = "names no file or database"
        raise ValueError(msg)
    query = dict(address.query)
    if "sslmode" in query:  # libpq's word, which people copy; asyncpg's is another
        query["ssl"] = query.pop("sslmode")
    if query.keys() - _PARAMETERS:
        msg = f"has parameters other than {', '.join(sorted(_PARAMETERS))}"
        raise ValueError(msg)
    return address.set(drivername=driver, query=query)


def _tune_sqlite(connection: Any, _: object) -> None:
    """Let one write while others read, and do not wait for the disk: a cache may lose its last seconds."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=OFF", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _padded(keys: Sequence[bytes]) -> list[bytes]:
    """Repeat the last key up to a power of two, so that few different statements are prepared."""
    return [*keys, *[keys[-1]] * ((1 << (len(keys) - 1).bit_length()) - len(keys))]
