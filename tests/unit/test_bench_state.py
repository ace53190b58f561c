from bench.state import measure


def test_a_state_on_disk_is_restored_changed_and_measured(tmp_path):
    """
    Whoever chooses an engine by figures needs them of the code that runs.
    """
    figures = measure("disk", 4_000, 5_000, tmp_path)

    assert (figures.keys, figures.row_bytes > 100, figures.disk_bytes > 0) == (4_000, True, True)
    assert min(figures.restore_us, figures.zipf_us, figures.uniform_us) > 0
