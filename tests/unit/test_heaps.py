"""Heaps of the C library."""

import os
import platform
import subprocess
import sys

import pytest

_COUNT_HEAPS = """
import ctypes, sys, tempfile, threading
from app.heaps import share_one_heap

if sys.argv[1] == "share":
    share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(4)

def allocate():
    barrier.wait()
    libc.malloc(100_000)
    barrier.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has a heap per thread")
def test_threads_share_one_heap():
    """
    Each would keep room that the others could use, and a worker would grow for hours.
    """
    assert count_heaps("share") == 1
    assert count_heaps("leave") > 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has a heap per thread")
def test_an_operator_who_says_how_many_heaps_is_heard():
    """
    On a machine of many cores there may be a reason for more.
    """
    assert count_heaps("share", MALLOC_ARENA_MAX="3") > 1


def count_heaps(how: str, **more: str) -> int:
    """Return how many there are after four threads were started."""
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | more
    command = [sys.executable, "-c", _COUNT_HEAPS, how]
    return int(subprocess.run(command, capture_output=True, check=True, timeout=30, env=environment).stdout)
