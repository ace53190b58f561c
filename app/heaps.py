"""Heaps of the C library: one for all threads, so that what one thread gives back can be used by the others."""

import ctypes
import os
import sys

_M_ARENA_MAX = -8


def share_one_heap() -> None:
    """Let glibc keep a single heap, unless ``MALLOC_ARENA_MAX`` says how many; without effect elsewhere.

    By default each thread gets one of its own, up to eight per core. Rows, replies and packed bytes are made in one
    thread and let go in another, so every heap kept room that only its own thread could fill again: ten of them grew by
    a megabyte in four minutes under a steady load, while Python's own memory stayed what it was.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
