"""The profiles of a configuration: a row of the table, what differs in 2D, the length of a training."""

import pytest
from pretext3d.errors import UserError
from pretext3d.training.session import profile_settings

TABLE = {
    "small": {"roi_size": [8, 8, 8], "rate": 1.0},
    "small_2d": {"roi_size": [16, 16]},
    "large": {"rate": 2.0},
}


def test_profile_in_2d_is_the_row_and_what_differs() -> None:
    assert profile_settings("small", TABLE) == {"roi_size": [8, 8, 8], "rate": 1.0}
    assert profile_settings("small", TABLE, spatial_dims=2) == {"roi_size": [16, 16], "rate": 1.0}


@pytest.mark.parametrize(
    ("profile", "dims", "message"),
    [
        ("small_2d", 3, "profile: found 'small_2d', expected one of small, large, both"),
        ("large", 2, "spatial_dims: found 2, expected 3: the table `profiles` has no row large_2d"),
        ("small", 4, "spatial_dims: found 4, expected 2 or 3"),
        ("small", True, "spatial_dims: found True, expected 2 or 3"),
        ("both", 3, "profiles: both has max_epochs and max_steps, expected one of them"),
    ],
)
def test_profiles_that_are_not_there(profile, dims, message) -> None:
    with pytest.raises(UserError) as caught:
        profile_settings(profile, {**TABLE, "both": {"max_epochs": 3, "max_steps": 9}}, dims)
    assert str(caught.value) == message


def test_a_setting_that_a_profile_lacks_is_a_mistake_in_the_table() -> None:
    settings = profile_settings("large", TABLE)
    assert settings.get("roi_size") is None
    with pytest.raises(UserError) as caught:
        settings["roi_size"]
    assert str(caught.value) == (
        "profiles::large: found no roi_size, expected a value for every key that the configuration reads "
        "from its profile"
    )


def test_a_profile_has_one_length_and_its_2d_row_may_have_the_other() -> None:
    table = {"a": {"max_epochs": 3}, "a_2d": {"max_steps": 9}, "b": {"max_steps": 7}, "b_2d": {"rate": 1.0}}
    assert profile_settings("a", table) == {"max_epochs": 3, "max_steps": None}
    assert profile_settings("a", table, 2) == {"max_epochs": None, "max_steps": 9}
    assert profile_settings("b", table, 2) == {"max_epochs": None, "max_steps": 7, "rate": 1.0}
