import numpy as np
import torch
from pretext3d.data.dataset import CachedVolumes
from pretext3d.data.subjects import subject_code
from pretext3d.methods.exemplar.figure import distances, draw, negative_of
from pretext3d.methods.exemplar.views import RandViewsd
from pretext3d.training.pictures import render

CASES = [{"id": f"{name}{n}", "subject": name} for n, name in enumerate("ppq")]


class Cases(CachedVolumes):
    """Three images, two of one subject, as a data set."""

    def __init__(self, *shape):
        self.data = CASES
        self.images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))

    def __getitem__(self, index):
        transform = RandViewsd(spatial_dims=self.images.ndim - 2).set_random_state(seed=index)
        return transform({**CASES[index], "image": self.images[index]})


def picture(*shape, pred=None, cases=None, embedded=(0.0, 3.0)):
    """The picture of case 0; the network embeds the negative's anchor at `embedded`."""
    dataset = Cases(*shape) if cases is None else cases
    network = torch.nn.Identity()
    how = {"dataset": dataset, "network": network, "device": "cpu"}
    how["inferer"] = lambda batch, _: torch.tensor([[list(embedded), [9.0, 9.0]]]).expand(len(batch), 2, 2)
    volume = {"id": "p0", "image": dataset.images[0]}
    return draw(volume, dataset[0], pred, **how)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_a_volume_has_three_planes_of_anchor_view_and_negative():
    figure = picture(2, 6, 7, 8)
    assert len(figure.axes) == 9
    found = texts(figure)
    assert {"p0", "Anchor", "Its view (positive)", "Another subject (negative)"} <= set(found)
    assert {"6 × 7 × 8 voxels", "channel 1 of 2 is shown"} <= set(found)  # noqa: RUF001
    assert np.isfinite(render(figure)).all()


def test_a_photograph_is_in_colour():
    figure = picture(3, 8, 6)
    assert len(figure.axes) == 3
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (6, 8, 3)
    assert any("8 × 6 pixels" in text for text in texts(figure))  # noqa: RUF001


def test_bright_images_are_not_clipped():
    """A view, and a negative, brighter than 1: the three share one range, and differ where they differ."""
    dataset = Cases(1, 12, 12)
    dataset.images = dataset.images + torch.tensor([0.0, 0.0, 2.0]).reshape(3, 1, 1, 1)
    shown = [panel.images[0] for panel in picture(1, 12, 12, cases=dataset).axes]
    assert len(shown) == 3
    bright = np.asarray(shown[2].get_array())
    assert len({image.get_clim() for image in shown}) == 1
    low, high = shown[0].get_clim()
    assert np.mean((bright > low) & (bright < high)) > 0.9
    assert bright.min() > np.median(np.asarray(shown[0].get_array()))


def test_distances_of_the_network():
    """Anchor (0, 0), view (0, 1): distance 1; the negative is at (0, 3)."""
    figure = picture(1, 6, 6, pred=torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    expected = "distance of anchor and view 1.00, of anchor and negative 3.00"
    assert expected in texts(figure)
    colours = {
        text.get_text(): text.get_color()
        for near in (0.5, 3.0)
        for text in picture(1, 6, 6, pred=torch.tensor([[0.0, 0.0], [0.0, 1.0]]), embedded=(0.0, near)).texts
    }
    far = colours["distance of anchor and view 1.00, of anchor and negative 3.00"]
    assert colours["distance of anchor and view 1.00, of anchor and negative 0.50"] != far


def test_cosine_distances():
    """At 0, 90 and 180 degrees, whatever the lengths: 1 and 2."""
    pred = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    text, near = distances(pred, torch.tensor([-3.0, 0.0]), "contrastive")
    assert text == "cosine distance of anchor and view 1.00, of anchor and negative 2.00"
    assert near


def test_the_negative_is_of_another_subject():
    dataset = Cases(1, 6, 6)
    assert [int(negative_of(dataset[n], dataset)["case_code"]) for n in (0, 1)] == [
        int(dataset[2]["case_code"])
    ] * 2
    assert int(negative_of(dataset[2], dataset)["subject_code"]) == subject_code(CASES[0])


def test_without_another_subject():
    dataset = Cases(1, 6, 6)
    dataset.data = CASES[:2]
    figure = picture(1, 6, 6, pred=torch.tensor([[0.0, 0.0], [0.0, 2.0]]), cases=dataset)
    assert len(figure.axes) == 2
    assert "distance of anchor and view 2.00" in texts(figure)
