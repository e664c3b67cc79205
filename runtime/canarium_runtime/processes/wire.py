"""Messages between parent and child: JSON objects, one a line, over a pair of sockets.

    child to parent    {"state": "Ready", "reason": ""}      where its model stands, at each change
                       {"metrics": "...", "round": 7}        the answer to "ask": its metrics, as text
                       {"scrape": 3}                         wants the metrics of all processes
    parent to child    {"ask": 7}                            give your metrics
                       {"scraped": 3, "metrics": "..."}      the answer to "scrape"
                       {"fleet": [...]}                      where all processes stand, at each change

The end of the stream means that the other side is gone.
"""

import asyncio
import json
from typing import Any, Final

Message = dict[str, Any]

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of one message; the metrics of one model take some tens of kilobytes."""
_MAX_UNREAD_BYTES: Final = 1024 * 1024
"""A peer that reads nothing (stopped, or stuck) is sent no more when so much waits for it."""


async def read(reader: asyncio.StreamReader) -> Message | None:
    """Read the next message; None when the other side is gone."""
    try:
        line = await reader.readuntil()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return None
    message: Message = json.loads(line)
    return message


def write(writer: asyncio.StreamWriter, message: Message) -> bool:
    """Send a message without waiting; False: it is dropped, since the other side is gone or reads nothing."""
    transport = writer.transport
    if transport.is_closing() or transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
        return False
    writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    return True
