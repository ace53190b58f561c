"""How each peer is measured, in its own process; it knows nothing of ours and needs nothing but Python.

A job is a JSON object as the only argument: broker, topic, events, window_ms (start of the window to answer for),
directory. The figures are the last line of standard output.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

TILE_MS = 300_000
TILES = 12


class Meter:
    """Counts events, and tells the figures at the end."""

    def __init__(self):
        self.job = json.loads(sys.argv[1])
        self.left = self.job["events"]
        self.window_ms = self.job["window_ms"]
        self.started = None

    def tick(self):
        """Count an event; return whether it was the last."""
        if self.started is None:
            self.started, self.cpu_started = time.time(), cpu_s()
        self.left -= 1
        if self.left == 0:
            self.ended, self.cpu_ended = time.time(), cpu_s()
            return True
        return False

    def tell(self, answers):
        """Print the figures; ``answers`` has (number, sum) by user."""
        figures = {
            "seconds": self.ended - self.started,
            "cpu_s": self.cpu_ended - self.cpu_started,
            "peak_bytes": peak_bytes(),
            "answers": {str(user): list(answer) for user, answer in answers.items()},
        }
        # Whatever else was printed stands in lines of its own.
        os.write(1, b"\n" + json.dumps(figures).encode() + b"\n")


def cpu_s():
    """Return the CPU time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_bytes():
    """Return the most memory that this process had; ``ru_maxrss`` would count that of the process which forked it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def add(tiles, event, name=int):
    """Add an event to hand-written tiles: by number of the tile, [number, sum]; at most 14 are kept."""
    number = event["time_ms"] // TILE_MS
    tile = tiles.get(name(number))
    if tile is not None:
        tile[0] += 1
        tile[1] += event["price_cents"]
        return
    if len(tiles) > TILES + 1:
        for old in [one for one in tiles if int(one) < number - TILES - 1]:
            del tiles[old]
    tiles[name(number)] = [1, event["price_cents"]]


def sum_of(tiles, window_ms, name=int):
    """Return (number, sum) over the tiles of a window."""
    first = window_ms // TILE_MS
    found = [tiles.get(name(number), (0, 0)) for number in range(first, first + TILES)]
    return sum(tile[0] for tile in found), sum(tile[1] for tile in found)
