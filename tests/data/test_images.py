"""Pictures: values to the last bit, what a viewer shows, labels, and broken or huge files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pretext3d.data.checks import check_cases
from pretext3d.data.images import picture_header, read_label_picture, read_picture, transparency
from pretext3d.data.volumes import VerdictCache, examine

from .pictures import bomb, colours, photograph, picture, png16

GREY = np.arange(6, dtype=np.uint8).reshape(2, 3)  # 2 rows, 3 columns: 0 1 2 / 3 4 5


def test_columns_are_i_and_rows_are_j(tmp_path):
    got = read_picture(picture(tmp_path / "a.png", GREY))
    assert got.shape == (3, 2, 1)
    assert got[..., 0].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
@pytest.mark.parametrize(
    "array",
    [
        GREY,
        GREY.astype(np.uint16) * 1000,
        colours(),
        np.concatenate([colours(), colours(seed=1)[..., :1]], -1),  # alpha is dropped, colours stay
    ],
)
def test_values_keep_their_bits(tmp_path, suffix, array):
    path = picture(tmp_path / f"a.{suffix}", array)
    got, channels = read_picture(path), 1 if array.ndim == 2 else 3
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(np.moveaxis(got, 0, 1), array.reshape(*array.shape[:2], -1)[..., :channels])
    assert tuple(picture_header(path)) == (array.shape[1], array.shape[0], channels, 1)


@pytest.mark.parametrize("channels", [3, 4])
def test_png_of_16_bits_per_colour(tmp_path, channels):
    array = np.concatenate([colours(high=65535), colours(seed=1, high=65535)], -1)[..., :channels]
    got = read_picture(png16(tmp_path / "a.png", array))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(np.moveaxis(got, 0, 1), array[..., :3])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "byteorder": ">"},
        {"tile": (16, 16)},
        {"extratags": [(274, "H", 1, 6, True)]},
    ],
)
def test_tiff_of_16_bits_per_colour(tmp_path, options):
    tifffile = pytest.importorskip("tifffile")
    array = colours(40, 50, high=65535)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", **options)
    shown = np.rot90(array, -1) if "extratags" in options else array
    np.testing.assert_array_equal(np.moveaxis(read_picture(str(tmp_path / "a.tif")), 0, 1), shown)
    assert picture_header(str(tmp_path / "a.tif"))[:2] == shown.shape[1::-1]


def test_what_tiff_can_hold_besides(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    planes = np.moveaxis(colours(high=65535), -1, 0)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(ValueError, match="colours of 16 bits stored as"):
        read_picture(str(tmp_path / "planes.tif"))
    tifffile.imwrite(tmp_path / "float.tif", GREY.astype(np.float32) / 7)
    np.testing.assert_array_equal(read_picture(str(tmp_path / "float.tif"))[..., 0].T, GREY.astype("f4") / 7)
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([GREY] * 4), photometric="minisblack")
    facts = examine(str(tmp_path / "pages.tif"), "image", 2)
    assert (facts.problem, facts.detail) == (
        "wrong number of dimensions",
        "4 pages, expected one picture per file",
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    stored = photograph()
    # EXIF's own definition: where the stored row 0 and column 0 are when shown
    shown = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    quality = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    path = picture(tmp_path / f"a.{suffix}", stored, orientation, **quality)
    got = np.moveaxis(read_picture(path), 0, 1).astype(int)
    assert np.abs(got - shown).max() <= (3 if suffix == "jpg" else 0)
    assert picture_header(path)[:2] == shown.shape[1::-1]
    if suffix == "tif":  # plain grey TIFFs are where Pillow maps a file to memory
        grey = picture(tmp_path / "grey.tif", stored[..., 0], orientation)
        np.testing.assert_array_equal(read_picture(grey)[..., 0].T, shown[..., 0])


def test_a_palette_of_greys_is_grey(tmp_path):
    """As an image its greys, as a label its indices."""
    indexed = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), mode="L").convert("P")
    indexed.putpalette([9, 9, 9, 80, 80, 80, 200, 200, 200])
    indexed.save(tmp_path / "a.png")
    assert picture_header(str(tmp_path / "a.png")).channels == 1
    assert read_picture(str(tmp_path / "a.png"))[..., 0].tolist() == [[9, 200], [80, 9]]
    assert read_label_picture(str(tmp_path / "a.png"))[..., 0].tolist() == [[0, 2], [1, 0]]


def test_palettes_and_cmyk_become_rgb(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), mode="L").convert("P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indexed.save(tmp_path / "a.png")
    assert read_picture(str(tmp_path / "a.png"))[1, 0].tolist() == [40, 50, 60]
    assert picture_header(str(tmp_path / "a.png")).channels == 3
    Image.fromarray(photograph()).convert("CMYK").save(tmp_path / "a.jpg")
    assert read_picture(str(tmp_path / "a.jpg")).shape == (64, 48, 3)
    assert read_label_picture(str(tmp_path / "a.png"))[..., 0].tolist() == [[0, 2], [1, 0]]  # class numbers


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (np.array([[0, 255], [255, 0]], np.uint8), [0, 1]),  # a binary mask
        (np.array([[0, 255], [255, 3]], np.uint8), [0, 3, 255]),
        (np.array([[0, 0], [0, 0]], np.uint8), [0]),
        (np.array([[False, True], [True, True]]), [0, 1]),
        (np.array([[[4, 4, 4], [0, 0, 0]], [[0, 0, 0], [1, 1, 1]]], np.uint8), [0, 1, 4]),
    ],
)
def test_labels(tmp_path, array, values):
    path = picture(tmp_path / "a.png", array)
    assert np.unique(read_label_picture(path)).tolist() == values
    facts = examine(path, "label", 2)
    assert (facts.values, facts.states, facts.channels) == (values, [["values", ""]], 1)


def test_what_is_no_label(tmp_path):
    assert examine(picture(tmp_path / "a.png", colours()), "label", 2).channels == 3
    jpeg = picture(tmp_path / "a.jpg", GREY)
    fault = "a JPEG, which changes them; expected PNG, TIFF or NIfTI"
    assert examine(jpeg, "label", 2).states == [["values", fault]]
    with pytest.raises(ValueError, match="JPEG changes the values of a label"):
        read_label_picture(jpeg)


def test_facts_of_a_picture(tmp_path):
    path = picture(tmp_path / "a.png", photograph(), 6)
    for kind in ("header", "image"):
        facts = examine(path, kind, 2)
        assert (facts.problem, facts.shape, facts.spacing, facts.axes) == ("", [48, 64, 1], [1, 1, 1], "LPS")
        assert facts.channels == 3
    assert facts.states == [["", ""], ["", ""], ["empty", "every voxel is 90"]]
    assert examine(path, "image").detail == "a picture, which spatial_dims: 2 reads"
    assert examine(picture(tmp_path / "row.png", GREY[:1]), "header", 2).problem == "single row"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_truncated_picture_is_unreadable(tmp_path, suffix):
    noise = np.random.RandomState(0).randint(0, 255, (60, 70, 3)).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    picture(path, noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    facts = VerdictCache(str(tmp_path / "cache"), 2).facts(str(path), "image")
    assert facts.problem == "unreadable"
    assert facts.detail
    path.write_text("<html>404</html>")
    assert examine(str(path), "header", 2).problem == "unreadable"


def test_a_huge_declared_size_is_refused(tmp_path):
    facts = examine(bomb(tmp_path / "a.png"), "header", 2)
    assert facts.problem == "unreadable"
    assert "declares more than 178,956,970 pixels" in facts.detail
    between = bomb(tmp_path / "b.png", 13_378)  # 178,970,884 pixels, above the limit by 14 thousand
    assert "pixels" in examine(between, "image", 2).detail


def with_alpha(array, alpha):
    return np.concatenate([array.reshape(*array.shape[:2], -1), alpha[..., None]], -1)


@pytest.mark.parametrize("array", [GREY, colours(2, 3)])
def test_alpha_that_is_not_opaque_is_named(tmp_path, array):
    """Two of six pixels; the colours are the stored ones in each case."""
    alpha = np.array([[255, 255, 255], [0, 255, 254]], np.uint8)
    through = picture(tmp_path / "through.png", with_alpha(array, alpha))
    solid = picture(tmp_path / "solid.png", with_alpha(array, np.full_like(alpha, 255)))
    np.testing.assert_array_equal(read_picture(through), read_picture(solid))
    assert transparency(solid) == transparency(picture(tmp_path / "plain.png", array)) == ""
    note = "alpha, below 255 in 33.3% of the pixels, is dropped: colours as stored"
    assert transparency(through) == examine(through, "image", 2).note == note
    assert examine(solid, "image", 2).note == ""


def test_a_transparent_entry_of_a_palette_is_alpha(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), mode="L").convert("P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indexed.save(tmp_path / "a.png", transparency=2)
    assert transparency(str(tmp_path / "a.png")).startswith("alpha, below 255 in 25.0% of the pixels")


def test_a_folder_of_different_pictures(tmp_path, caplog):
    """Sizes may differ; the number of channels is that of most; each outcome is one line with a reason."""
    made = {"a": colours(20, 30), "b": colours(12, 40, seed=1), "c": colours(9, 9, seed=2)}
    files = {name: picture(tmp_path / f"{name}.png", array) for name, array in made.items()}
    files["grey"] = picture(tmp_path / "grey.png", photograph(8, 8)[..., 0])
    alpha = np.full((9, 9), 128, np.uint8)
    files["alpha"] = picture(tmp_path / "alpha.png", with_alpha(colours(9, 9, seed=3), alpha))
    frames = [Image.fromarray(colours(6, 6, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "animated.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "other.png", format="GIF")
    Image.fromarray(colours(6, 6)).convert("RGB").convert("LAB").save(tmp_path / "lab.tif")
    Path(tmp_path / "page.png").write_text("<html>404</html>")
    for name in ("animated.png", "other.png", "lab.tif", "page.png"):
        files[name[:-4]] = str(tmp_path / name)
    cases = [{"id": name, "image": path} for name, path in files.items()]
    checked = check_cases(cases, spatial_dims=2)
    assert [case["id"] for case in checked.good] == ["a", "b", "c", "alpha"]
    assert {case["id"]: reason for case, reason in checked.bad} == {
        "grey": "wrong number of channels: 1, expected 3 as in most cases",
        "animated": "wrong number of dimensions: 3 pages, expected one picture per file",
        "other": "unreadable: its content is no PNG, JPEG or TIFF",
        "lab": "unreadable: colours in LAB, expected grey, RGB, CMYK or a palette",
        "page": "unreadable: its content is no PNG, JPEG or TIFF",
    }
    assert [r.message for r in caplog.records if "alpha" in r.message] == [
        "alpha: alpha.png: alpha, below 255 in 100.0% of the pixels, is dropped: colours as stored"
    ]
    first = check_cases(cases, channels=[0], spatial_dims=2)  # of grey its only one, of RGB red
    assert [case["id"] for case in first.good] == ["a", "b", "c", "grey", "alpha"]


def test_grey_of_16_bits_with_alpha_is_not_halved(tmp_path):
    """Pillow keeps the upper 8 bits."""
    path = png16(
        tmp_path / "a.png", with_alpha(GREY.astype(np.uint16) * 1000, np.full_like(GREY, 9, np.uint16))
    )
    with pytest.raises(ValueError, match="grey of 16 bits with alpha, of which 8 would be lost"):
        read_picture(path)
    assert examine(path, "image", 2).problem == "unreadable"
