"""Short forms of what `experiments.robustness.faults` does at length."""

import pytest

from experiments.robustness import faults


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_been(tmp_path):
    found = faults.kill(2, 1, tmp_path, epochs=6, sources=("arrays", "drawn"))
    assert found["equal"] == found["rounds"] == 2, found
    assert found["kills"] > 0, found


@pytest.mark.slow
def test_damaged_checkpoints_are_named_and_passed_over(tmp_path):
    for kind, found in faults.damage(2, 1, tmp_path).items():
        assert found == {"tried": 2, "named": 2, "restored": 2}, kind


@pytest.mark.slow
def test_a_full_disk_is_told_and_survived(tmp_path):
    if not faults.has_small_disks():
        pytest.skip("no small disk can be made without privilege here")
    found = faults.disk(1, 0, tmp_path, epochs=4)
    assert (found["refused"], found["equal"]) == (1, 1), found
