"""Configurations of bundles that carry the package: the two places that differ, and what is refused."""

import pytest
from pretext3d.errors import UserError
from pretext3d.publishing.vendoring import INSIDE, vendored

INSTALLED = """# a bundle
bundle_root:
  _target_: pretext3d.training.workflow.bundle_root
seed: 0

initialize:
- _target_: pretext3d.training.session.begin
run: []
"""


def test_root_and_first_step() -> None:
    text = vendored(INSTALLED, "train.yaml")
    assert text == INSTALLED.replace(
        "bundle_root:\n  _target_: pretext3d.training.workflow.bundle_root\n", INSIDE
    ).replace("initialize:\n", "initialize:\n- $sys.path.insert(0, @bundle_root)\n")
    assert vendored(text, "train.yaml") == text


def test_an_overlay_has_no_root() -> None:
    overlay = "weights: final\ninitialize:\n- $1\n"
    assert vendored(overlay, "evaluate.yaml") == (
        "weights: final\ninitialize:\n- $sys.path.insert(0, @bundle_root)\n- $1\n"
    )
    assert vendored("seed: 1\n", "other.yaml") == "seed: 1\n"


@pytest.mark.parametrize(
    ("there", "here", "name"),
    [
        ("bundle_root:\n  _target_: ", "bundle_root: {_target_: ", "bundle_root"),
        ("\ninitialize:\n- _target_: ", "\ninitialize: [$1]\n#", "initialize"),
    ],
)
def test_another_form_is_refused(there: str, here: str, name: str) -> None:
    text = INSTALLED.replace(there, here)
    text = (
        text.replace("workflow.bundle_root\n", "workflow.bundle_root}\n") if name == "bundle_root" else text
    )
    with pytest.raises(UserError, match=f"train.yaml: found `{name}` in another form than the template's"):
        vendored(text, "train.yaml")
