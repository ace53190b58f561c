"""Run by Feast's own interpreter: makes a repository of 5 views with 10 features each, and writes the rows online.

``python feast_repo.py DIRECTORY ROWS``. It is a program of its own because Feast's dependencies are not ours.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

VIEWS, FEATURES = 5, 10

directory, rows = Path(sys.argv[1]), int(sys.argv[2])
(directory / "feature_store.yaml").write_text(
    "project: bench\nregistry: registry.db\nprovider: local\nonline_store:\n  type: sqlite\n  path: online.db\n"
    "entity_key_serialization_version: 3\n"
)
names = [f"f{number}" for number in range(FEATURES)]
frame = pd.DataFrame({"user_id": range(rows), "event_timestamp": datetime.now(UTC), "created": datetime.now(UTC)})
for number, name in enumerate(names):
    frame[name] = [row * 1.5 + number if number % 2 else row + number for row in range(rows)]
frame.to_parquet(directory / "rows.parquet")

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
store = FeatureStore(repo_path=str(directory))
views = []
for number in range(VIEWS):
    renamed = frame.rename(columns={name: f"g{number}_{name}" for name in names})
    source = FileSource(
        name=f"rows{number}", path=str(directory / f"rows{number}.parquet"), timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )  # fmt: skip
    renamed.to_parquet(directory / f"rows{number}.parquet")
    fields = [
        Field(name=f"g{number}_{name}", dtype=Float64 if place % 2 else Int64) for place, name in enumerate(names)
    ]
    views.append(FeatureView(name=f"g{number}", entities=[user], ttl=timedelta(days=7), schema=fields, source=source))
store.apply([user, *views])
for number in range(VIEWS):
    store.write_to_online_store(f"g{number}", frame.rename(columns={name: f"g{number}_{name}" for name in names}))
