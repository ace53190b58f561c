"""A read as it stands on the wire, for clients that send what they want and see what comes."""

import asyncio
import json
from collections.abc import Sequence

PATH = "/get-online-features"
HOST = "127.0.0.1"


def request(users: Sequence[int], features: Sequence[str]) -> bytes:
    """Return a request for features of users."""
    return raw_request(json.dumps({"entities": {"user_id": users}, "features": features}).encode())


def raw_request(body: bytes) -> bytes:
    """Return a request with this body."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return the status and the body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    length = next(int(line.partition(":")[2]) for line in head if line.lower().startswith("content-length:"))
    return int(head[0].split()[1]), await reader.readexactly(length)
