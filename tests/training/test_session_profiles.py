"""The profiles of a configuration: a row of the table, what differs in 2D, the length of a training."""

import pytest
from pretext3d.errors import UserError
from pretext3d.training.session import profile_rows, profile_settings

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


def test_a_profile_like_another_has_its_settings_and_in_2d_those_of_both_rows() -> None:
    table = {
        "a": {"roi_size": [8, 8, 8], "rate": 1.0, "batch": 2},
        "b": {"like": "a", "roi_size": [4, 4, 4], "rate": 2.0},
        "a_2d": {"roi_size": [16, 16], "batch": 9},
    }
    assert profile_settings("b", table) == {"roi_size": [4, 4, 4], "rate": 2.0, "batch": 2}
    assert profile_rows("b", table, 2) == ["a", "b", "a_2d"]  # a size of three axes does not prevail in 2D
    assert profile_settings("b", table, 2) == {"roi_size": [16, 16], "rate": 2.0, "batch": 9}
    more = {**table, "b_2d": {"batch": 3}}
    assert profile_settings("b", more, 2) == {"roi_size": [16, 16], "rate": 2.0, "batch": 3}


def test_a_profile_like_another_may_have_the_other_length() -> None:
    table = {"a": {"max_epochs": 3}, "b": {"like": "a", "max_steps": 9}}
    assert profile_settings("b", table) == {"max_epochs": None, "max_steps": 9}


@pytest.mark.parametrize("like", ["nothing", "b", "c", "a_2d", 7])
def test_a_profile_is_like_one_that_has_all_settings_itself(like: object) -> None:
    table = {"a": {}, "a_2d": {}, "b": {"like": "a"}, "c": {"like": like}}
    with pytest.raises(UserError) as caught:
        profile_settings("c", table)
    assert str(caught.value) == f"profiles::c::like: found {like!r}, expected one of a"
