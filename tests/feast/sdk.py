"""Runs in an environment of its own, with the stock Feast SDK and nothing of ours: ``python sdk.py URL KEY``.

Reads as a team's existing client would, writes as it would, and prints what it saw as one JSON object.
"""

import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException
from feast.types import Float64, Int64, String

CONFIG = """
project: freshet_test
provider: local
registry: registry.db
entity_key_serialization_version: 3
online_store: {{type: remote, path: "{url}", connection_retries: 0}}
auth: {{type: oidc, token: "{key}"}}
"""
USER = 31


def open_store(directory, url, key):
    """Return a store whose registry knows one view per source that is written, and the service that is read."""
    (directory / "feature_store.yaml").write_text(CONFIG.format(url=url, key=key))
    store = FeatureStore(repo_path=str(directory))
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    batch = FileSource(path=str(directory / "none.parquet"), timestamp_field="event_timestamp")
    clicks = FeatureView(
        name="clicks", entities=[user], ttl=timedelta(days=1), online=True,
        schema=[Field(name="user_id", dtype=Int64), Field(name="video_id", dtype=Int64), Field(name="tab", dtype=Int64),
                Field(name="event_id", dtype=String)],
        source=PushSource(name="clicks_push", batch_source=batch),
    )  # fmt: skip
    engagement = FeatureView(
        name="user_engagement", entities=[user], ttl=timedelta(days=1), online=True,
        schema=[Field(name="user_id", dtype=Int64), Field(name="clicks_1h", dtype=Int64), Field(name="ctr_1h", dtype=Float64)],
        source=batch,
    )  # fmt: skip
    services = [FeatureService(name=name, features=[engagement]) for name in ("home_feed", "no_such_service")]
    store.registry.apply_entity(user, store.project)
    for view in (clicks, engagement):
        store.registry.apply_feature_view(view, store.project)
    for service in services:
        store.registry.apply_feature_service(service, store.project)
    return store


def rows(*ids):
    """Return clicks of one user with these ids, as a data frame."""
    now = datetime.now(UTC)
    return pd.DataFrame(
        {
            "user_id": [USER] * len(ids), "video_id": list(range(len(ids))), "tab": [0] * len(ids), "event_id": list(ids),
            "event_timestamp": [now] * len(ids), "created": [now] * len(ids),
        }
    )  # fmt: skip


def raised(call):
    """Return the class and message of what a call raises."""
    try:
        call()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def read(store, **request):
    """Return what the SDK makes of an answer: names in order, values and statuses."""
    answer = store.get_online_features(**request)
    return {
        "names": list(answer.proto.metadata.feature_names.val),
        "values": answer.to_dict(),
        "statuses": [list(result.statuses) for result in answer.proto.results],
    }


def main(url, key):
    """Print what was seen."""
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(Path(directory), url, key)
        entities = [{"user_id": number} for number in (USER, 999, 24720, USER)]
        features = [
            "user_engagement:impressions_1h",
            "user_engagement:ctr_1h",
            "user_taste:last_videos_7d",
            "user_taste:tab",
        ]
        store.push("clicks_push", rows("sdk-1", "sdk-2"))
        store.write_to_online_store("clicks", rows("sdk-2", "sdk-3"))
        count = ["user_engagement:clicks_1h"]
        deadline = time.monotonic() + 20
        counted = None
        while counted != 3 and time.monotonic() < deadline:
            counted = read(store, entity_rows=[{"user_id": USER}], features=count)["values"]["clicks_1h"][0]
            time.sleep(0.05)
        print(json.dumps({
            "counted": counted,
            "features": read(store, entity_rows=entities, features=features),
            "full_names": read(store, entity_rows=entities, features=features, full_feature_names=True)["names"],
            "service": read(store, entity_rows=entities, features=store.get_feature_service("home_feed")),
            "unknown_view": raised(lambda: read(store, entity_rows=entities, features=["no_such_view:x"])),
            "unknown_service": raised(
                lambda: read(store, entity_rows=entities, features=store.get_feature_service("no_such_service"))),
            "unknown_feature": raised(lambda: read(store, entity_rows=entities, features=["user_engagement:x"])),
            "several_sources": raised(lambda: store.write_to_online_store(
                "user_engagement", rows("x").assign(clicks_1h=1, ctr_1h=0.5).drop(columns=["video_id", "tab", "event_id"]))),
            "refused_key": raised(lambda: read(
                open_store(Path(tempfile.mkdtemp(dir=directory)), url, "freshet_wrong"), entity_rows=entities, features=count)),
            "exceptions": [FeatureViewNotFoundException.__name__, FeatureServiceNotFoundException.__name__],
        }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
