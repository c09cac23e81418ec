"""The transforms of a data set that the tests of its cache fill it with."""

from monai.transforms import Compose, LoadImaged, RandShiftIntensityd, ScaleIntensityd


def pipeline() -> Compose:
    return Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            ScaleIntensityd("image"),
            RandShiftIntensityd("image", offsets=1.0, prob=1.0),
        ]
    )
