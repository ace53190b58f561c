r"""A log of reads with the times of the demo's two days, out of what a worker has recorded while it ran the demo.

The demo loads two days in seconds, so what its worker records (``FRESHET_READS_LOG``) has the keys and the sizes of all
rows, and no times that mean anything. Who watched what when is in the events: a feed that is opened reads its user's
features and those of the videos that it ranks; an event writes the rows that it feeds. So the times come from there,
and the sizes from the recorded writes of the same row, in their order. Which videos lost against those that were shown
nobody has published: they are drawn from what others were shown last.

    FRESHET_READS_LOG=recorded.csv FRESHET_READS_LOG_SHARE=0.25 freshet demo --exit
    python -m bench.cache_log recorded.csv > reads.csv
    freshet cache simulate reads.csv --share 0.25 --local-mb 1 --policy soft_ttl_s=300 --policy soft_ttl_s=3600 \
        --policy write=around,soft_ttl_s=300 --policy tier=direct --picture docs/cache.svg
"""

import argparse
import csv
import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from xxhash import xxh3_64_intdigest

from core.definitions import Entity, FeatureGroup
from core.keys import encode_key, partition_key
from demo.log import IMPRESSIONS, DemoEvent, load_log
from features import REGISTRY
from serving.answers.reads_log import FIELDS

_FEED = ("user_engagement", "user_taste")
_RANKER = ("video_popularity", "video_quality")

_CANDIDATES = 20
_SHOWN_LAST = 2_000

Line = tuple[int, str, str, str, int | str]


def main() -> None:
    """Write the log of the recorded keys to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("recorded", type=Path, help="what a worker has written to FRESHET_READS_LOG")
    recorded = parser.parse_args().recorded
    writer = csv.writer(sys.stdout)
    writer.writerow(FIELDS)
    sizes = _sizes(recorded)
    writer.writerows(line for line in lines(load_log(), sizes) if line[2:4] in sizes)


def lines(events: list[DemoEvent], sizes: Mapping[tuple[str, str], list[int]]) -> Iterator[Line]:
    """Return the lines of the log, in the order of time.

    Args:
        events: Oldest first.
        sizes: By group and hashed key, the bytes of the row's recorded writes; the last stands for those to come.
    """
    entities = {group.name: group.entity for group in REGISTRY.groups}
    fed = {topic: [group for group in REGISTRY.groups if topic in _topics(group)] for topic in REGISTRY.sources}
    written: dict[tuple[str, str], int] = defaultdict(int)
    shown: deque[DemoEvent] = deque(maxlen=_SHOWN_LAST)
    opened: tuple[str, int] | None = None
    chance = Random(17)  # noqa: S311  # the same log each time
    for event in events:
        if event.topic == IMPRESSIONS:
            ranked = [event]
            # Videos that one feed shows share its time.
            if opened != (opened := (event.key, event.time_ms)):
                ranked += chance.sample(shown, min(_CANDIDATES, len(shown)))
                for group in _FEED:
                    yield event.time_ms, "read", group, _key(entities[group], event), ""
            shown.append(event)
            for video in {_key(entities[_RANKER[0]], one): one for one in ranked}:
                for group in _RANKER:
                    yield event.time_ms, "read", group, video, ""
        for group in fed[event.topic]:
            place = group.name, _key(group.entity, event)
            if found := sizes.get(place):
                yield event.time_ms, "write", *place, found[min(written[place], len(found) - 1)]
                written[place] += 1


def _topics(group: FeatureGroup) -> set[str]:
    return {source.topic for source in group.sources}


def _key(entity: Entity, event: DemoEvent) -> str:
    encoded = encode_key([event.fields[name] for name in entity.keys])
    return f"{xxh3_64_intdigest(partition_key(entity.name, encoded).encode()):016x}"


def _sizes(recorded: Path) -> dict[tuple[str, str], list[int]]:
    sizes: dict[tuple[str, str], list[int]] = defaultdict(list)
    with recorded.open(newline="") as file:
        for line in csv.DictReader(file):
            if line["op"] == "write":
                sizes[line["group"], line["key"]].append(int(line["bytes"]))
    return sizes


if __name__ == "__main__":
    main()
