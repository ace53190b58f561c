"""Packs to append to, and tables as bytes: what tests need of both and the pipeline does not."""

from core.packs import PACK_FORMAT, Pack
from tables.table import GroupTable, freeze


def empty_pack(source: str, topic_id: str, partition: int, names: list[str]) -> Pack:
    """A pack to append to."""
    return Pack(PACK_FORMAT, source, topic_id, partition, names, [], [], [], [], [], [], [[] for _ in names])


def cool(group: GroupTable) -> None:
    """Let rows cool down, all at once."""
    for _ in group.cool():
        pass


def packed_rows(group: GroupTable) -> dict[str, bytes]:
    """Every row's changelog bytes by its key."""
    cold = dict(group.cold().items_meanwhile())
    return cold | {key: freeze(group, key, row).change for key, row in group._live.items()}
