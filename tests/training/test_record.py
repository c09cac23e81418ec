"""What a record says of the data that a network was trained on."""

import pytest
from pretext3d.errors import UserError
from pretext3d.training.record import check_data_given


@pytest.mark.parametrize("given", ["", None, []])
def test_the_phantom_does_not_stand_for_the_data_of_the_training(given) -> None:
    with pytest.raises(
        UserError, match=r"dataset_dir: found none, but .* trained on the folder heart; expected"
    ):
        check_data_given(given, {"data": {"name": "heart"}})
    check_data_given("scans", {"data": {"name": "heart"}})
    check_data_given(given, {"data": {"name": "phantom"}})
    check_data_given(given, {})  # of another program
