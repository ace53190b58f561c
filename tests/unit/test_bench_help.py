import runpy
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
RUN_BY_HAND = sorted(
    path.relative_to(BENCH.parent).with_suffix("").as_posix().replace("/", ".")
    for path in BENCH.rglob("*.py")
    if '\nif __name__ == "__main__":\n' in path.read_text() and path.parent.name != "peers"
)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", RUN_BY_HAND)
def test_every_measurement_tells_how_it_is_run(module, monkeypatch, capsys):
    """
    ``python -m bench.memory --help`` took --help for a number and ended with a trace.
    """
    monkeypatch.setattr(sys, "argv", [module, "--help"])

    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")

    assert not ended.value.code
    assert "usage" in capsys.readouterr().out.lower()
