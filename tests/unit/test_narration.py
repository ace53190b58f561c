from demo.figures import Figures
from demo.narration import Narration
from demo.session import Progress


def test_a_run_without_a_screen_is_told_by_its_phases_and_every_five_seconds_of_the_load():
    """
    Whoever asked for JSON looked at nothing for half a minute.
    """
    lines, now = [], [100.0]
    narration = Narration(lines.append, monotonic=lambda: now[0])
    progress = Progress(total=1_000)

    for phase, dispatched in [("starting", 0), *(("loading", 10 * second) for second in range(12)), ("live", 900)]:
        progress.phase, progress.figures = phase, Figures(late=dispatched)
        narration.look(progress)
        narration.look(progress)
        now[0] += 1
    progress.phase = "checking"
    narration.look(progress)

    assert lines[:-1] == [
        "loading two days of events: 0 of 1,000",
        "loading two days of events: 50 of 1,000",
        "loading two days of events: 100 of 1,000",
        "playing the last events live; 900 of 1,000 are there",
    ]
    assert lines[-1].startswith("reading every value")
