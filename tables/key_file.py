"""A queue of keys in a file: written at its end and read from its beginning, some hundreds of keys at a time."""

from pathlib import Path

import msgspec
from typing_extensions import override

from core.errors import DiskError
from tables.engine import KeyQueue

_AT_ONCE = 500
_LENGTH_BYTES = 4

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[str]).decode


class KeyFile(KeyQueue):
    """Keys that wait in a file, which is there only while keys are in it.

    Methods raise ``DiskError`` if the file cannot be written or read.
    """

    def __init__(self, path: Path, *, at_once: int = _AT_ONCE) -> None:
        self._path = path
        self._at_once = at_once
        self._count = 0
        self._unread = range(0)
        self._front: list[str] = []
        self._back: list[str] = []

    @override
    def __len__(self) -> int:
        return self._count

    @override
    def append(self, key: str, /) -> None:
        self._back.append(key)
        self._count += 1
        if len(self._back) >= self._at_once:
            try:
                self._write()
            except OSError as error:
                raise DiskError(f"{self._path} cannot be written: {error}") from error

    @override
    def pop(self) -> str:
        if not self._front and self._unread:
            try:
                self._read()
            except (OSError, msgspec.MsgspecError) as error:
                raise DiskError(f"{self._path} cannot be read: {error}") from error
        self._count -= 1
        return (self._front or self._back).pop()

    def _write(self) -> None:
        keys = _encode(self._back)
        with self._path.open("ab") as file:
            file.write(len(keys).to_bytes(_LENGTH_BYTES, "big") + keys)
            self._unread = range(self._unread.start, file.tell())
        self._back = []

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._unread.start)
            keys = file.read(int.from_bytes(file.read(_LENGTH_BYTES), "big"))
            self._front = _decode(keys)
            self._unread = range(file.tell(), self._unread.stop)
        if not self._unread:
            self._path.unlink()
            self._unread = range(0)
