"""Cases whose negatives are images of other subjects."""

import logging

import pytest
from pretext3d.data.negatives import held_out_cases, training_cases
from pretext3d.errors import UserError


def cases_of(*subjects):
    return [{"id": f"{name}{n}", "subject": name} for n, name in enumerate(subjects)]


def test_a_single_subject_has_no_negatives():
    with pytest.raises(UserError, match=r"found 3 training cases of one subject, .* expected two training"):
        training_cases(cases_of("p", "p", "p"))
    assert training_cases(cases_of("p", "q")) == cases_of("p", "q")


def test_batches_of_one_have_no_negatives():
    with pytest.raises(UserError, match="batch_size: found 1 with negatives: batch, expected 2 or more"):
        training_cases(cases_of("p", "q"), "batch", 1)
    assert len(training_cases(cases_of("p", "q"), "dataset", 1)) == 2


def test_held_out_subjects_come_in_turn(caplog):
    got = held_out_cases(cases_of("p", "p", "p", "q", "r", "r"))
    assert [case["id"] for case in got] == ["p0", "q3", "r4", "p1", "r5", "p2"]
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        held_out_cases(cases_of("p", "p"))
    assert "held-out cases are of one subject" in caplog.text


def test_parts_of_the_same_image_need_no_other_subject(caplog):
    cases = cases_of("p", "p")
    assert training_cases(cases, "image", 1) == held_out_cases(cases, "image") == cases
    assert caplog.records == []
