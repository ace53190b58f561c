import itertools
import re

import pytest

from app.registry import load_registry
from core.errors import ConfigurationError

SHOP = """
from datetime import timedelta

from pydantic import BaseModel

from core.definitions import Count, Entity, FeatureGroup, Registry, ServingPolicy, Source, WritePolicy, aggregate
from core.windows import hours

class Play(BaseModel):
    time_ms: int
    user_id: int

USER = Entity("user", keys=("user_id",))
PLAYS = Source("plays", Play, event_time="time_ms", event_id=None)
GROUP = FeatureGroup(
    "engagement",
    entity=USER,
    owner="feed",
    features=(aggregate("plays", PLAYS, Count(), over=(hours(1),)),),
    serving=ServingPolicy(soft_ttl=hours(1)),
    writing=WritePolicy.through(every=timedelta(seconds=1)),
)
REGISTRY = Registry(groups=(GROUP,))
"""

numbers = itertools.count()


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load definitions of which a piece is written otherwise; return what is told, the file's name as FILE."""
    monkeypatch.syspath_prepend(tmp_path)

    def load(right: str, wrong: str) -> str:
        assert SHOP.count(right) == 1
        name = f"shop_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(SHOP.replace(right, wrong))
        with pytest.raises(ConfigurationError) as refused:
            load_registry(f"{name}:REGISTRY")
        return str(refused.value).replace(str(tmp_path / f"{name}.py"), "FILE").replace(name, "shop")

    return load


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("soft_ttl=", "soft_tll=", "FILE:20: ServingPolicy takes no soft_tll; did you mean soft_ttl?"),
        ("every=", "evry=", "FILE:21: WritePolicy.through takes no evry; did you mean every?"),
        ("over=(", "ovr=(", "FILE:19: aggregate takes no ovr; did you mean over?"),
        ("entity=USER,", "", "FILE:15: FeatureGroup needs entity; give what is missing"),
        ("entity=USER", "USER", "FILE:15: FeatureGroup is given too much without names; give by name entity=, "),
        ("Count()", "Cuont()", "FILE:19: Cuont is not defined; did you mean Count?"),
        ("Count()", "TopK()", "FILE:19: TopK is not defined; import it: from core.definitions import TopK"),
        ("=USER", "=ARTICLES", "FILE:17: ARTICLES is not defined; define it above, or import it"),
        ("=USER", "=USER.nam", "FILE:17: 'Entity' object has no attribute 'nam'; did you mean name?"),
        ("import hours", "import hour", "FILE:7: core.windows has no hour; did you mean hours?"),
        ("import hours", "import ,", "FILE:7: this is no Python: "),
        ("from pydantic", "from pydntic", "FILE:4: ModuleNotFoundError: No module named 'pydntic'"),
        ("(seconds=1)", "(seconds='x')", "FILE:21: TypeError: "),
        ("REGISTRY =", "REGSTRY =", "FRESHET_REGISTRY=shop:REGISTRY: shop has no REGISTRY; did you mean REGSTRY?; "),
    ],
)
def test_a_mistake_that_python_finds_in_definitions_is_told_with_its_line_and_what_was_meant(load, right, wrong, told):
    """
    A misspelt soft_ttl was told as a mistake of FRESHET_REGISTRY, in the words of Python's interpreter.
    """
    assert re.match(re.escape(told), load(right, wrong))
