"""The truth file: when, on `time.perf_counter_ns()`, each request arrived and each token left.

Layout: 16 bytes of magic, then records of 17 bytes, little-endian, in the order of events:
`t_ns` uint64, `request` uint32 (its number since the server's start, from 0), `aux` uint32, `kind` uint8.
kind 0: the request's last byte was read; aux is the CRC-32 of the answer's id. kind 1: a token is handed to the socket; aux is its
place among the request's tokens, from 0. kind 2: the answer's last byte is handed over; aux is its number of tokens. kind 3: the
answer broke off, by the client or by a fault; aux is the tokens that had left.
Law: a stamp is taken before its write, so no client can have seen the bytes earlier. Numpy is needed to read, not to write.
"""

import os
import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC: Final = b"loadgen-truth-1\n"
ARRIVED, TOKEN, ENDED, BROKEN = range(4)
_RECORD: Final = struct.Struct("<QIIB")
_FLUSH_BYTES: Final = 1 << 20  # at most this much is held back between the flushes of each second


class TruthWriter:
    """Appends records; `flush` at least once a second and at the end is the server's duty."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._buffer = bytearray(MAGIC)
        self.flush()

    def add(self, t_ns: int, request: int, aux: int, kind: int) -> None:
        self._buffer += _RECORD.pack(t_ns, request, aux, kind)
        if len(self._buffer) >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        while self._buffer:
            del self._buffer[: os.write(self._fd, self._buffer)]

    def close(self) -> None:
        self.flush()
        os.close(self._fd)


def read_truth(path: str | os.PathLike[str]) -> "NDArray[np.void]":
    """The records as a structured array with fields t_ns, request, aux, kind.

    A record torn by a killed server is left out.

    Raises:
        ValueError: not a truth file.

    """
    import numpy as np

    with open(path, "rb") as file:
        data = file.read()
    if not data.startswith(MAGIC):
        raise ValueError(f"{os.fspath(path)}: not a truth file (no {MAGIC[:-1].decode()} at its start)")
    fields: Any = [("t_ns", "<u8"), ("request", "<u4"), ("aux", "<u4"), ("kind", "u1")]
    dtype = np.dtype(fields)
    records = (len(data) - len(MAGIC)) // dtype.itemsize
    return np.frombuffer(data, dtype=dtype, count=records, offset=len(MAGIC))
