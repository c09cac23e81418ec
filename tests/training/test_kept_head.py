"""An output layer is kept only where its outputs mean the same."""

from pathlib import Path

import pytest
from pretext3d.errors import UserError
from pretext3d.training.record import check_output_layer


def test_a_kept_head_has_the_same_outputs():
    """In number they agree: the order of the classes, their label values or the decoder differ."""
    names = ["background", "a", "b"]
    record = {"class_names": names, "labels": {"values": [0, 1, 4]}}
    here = ("", *names, "{'values': [0, 1, 4]}")
    check_output_layer(Path("x.pt"), record, here)
    check_output_layer(Path("x.pt"), {}, here)  # names no classes
    check_output_layer(Path("x.pt"), record, None)
    for other in (
        {**record, "class_names": ["background", "b", "a"]},
        {**record, "labels": {"values": [0, 1, 2]}},
        {**record, "decoder": "duc"},
    ):
        with pytest.raises(UserError, match=r"x\.pt: its head cannot be kept: its outputs are"):
            check_output_layer(Path("x.pt"), other, here)
