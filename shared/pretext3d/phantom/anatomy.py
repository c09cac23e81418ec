"""The phantom's anatomy: one torso from the neck to the pelvis, organ by organ, painted on a `Canvas`.

Positions are millimetres in body coordinates (x to the subject's right, y to the front, z to the head; see
canvas.py), round numbers of an average adult. Intensities imitate a T1-weighted gradient-echo MR image after
contrast agent: fat and vessels bright, fluid and bone dark, lungs and air darkest.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pretext3d.phantom.canvas import Array, Canvas, Point, Profile, common, joined

__all__ = ["LABELS", "TISSUES", "paint_torso"]

LABELS = ("background", "liver", "spleen", "kidneys", "heart", "lungs", "spine", "aorta")
LIVER, SPLEEN, KIDNEYS, HEART, LUNGS, SPINE, AORTA = range(1, 8)
TISSUES = {
    "air": 0.0, "lung": 70.0, "bone": 170.0, "fluid": 190.0, "disc": 260.0, "muscle": 360.0, "bowel": 400.0,
    "cord": 420.0, "skin": 430.0, "heart": 450.0, "spleen": 480.0, "medulla": 540.0, "marrow": 560.0,
    "liver": 590.0, "cortex": 700.0, "vein": 720.0, "blood": 790.0, "fat": 900.0,
}  # fmt: skip

# The outlines of the muscles and of the cavity inside: half width, half depth, middle of the depth
OUTLINE = (
    Profile(
        (-180, 118),
        (-130, 119),
        (-70, 110),
        (0, 115),
        (60, 122),
        (105, 124),
        (128, 104),
        (146, 66),
        (165, 52),
    ),
    Profile((-180, 80), (-130, 80), (-70, 80), (0, 87), (60, 89), (105, 80), (128, 65), (146, 55), (165, 52)),
    Profile((-180, 0), (-70, 3), (0, 1), (60, 0), (105, -4), (146, -12), (165, -12)),
)
CAVITY = (
    Profile(
        (-180, 98), (-130, 101), (-70, 96), (0, 101), (45, 100), (85, 84), (115, 58), (135, 30), (150, 8)
    ),
    Profile((-180, 62), (-70, 65), (0, 71), (45, 70), (85, 60), (115, 42), (135, 22), (150, 7)),
    Profile((-180, 8), (-70, 8), (0, 4), (45, 2), (85, -4), (115, -12), (135, -20), (150, -22)),
)
FAT = Profile((-180, 1.3), (-110, 1.4), (-40, 1.1), (30, 0.7), (110, 0.8), (150, 0.7))
# The spine: depth of the vertebral bodies' centres, their radius, the number of vertebrae from the bottom
SPINE_Y = Profile(
    (-180, -30), (-120, -26), (-60, -33), (0, -44), (60, -48), (110, -40), (140, -30), (165, -24)
)
SPINE_RADIUS = Profile((-180, 23), (-80, 20), (0, 17), (80, 15), (165, 11))
VERTEBRAE = Profile((-180, 0), (-110, 2), (-48, 4), (-20, 5), (56, 8), (128, 11.2), (165, 13.3))
AORTA_X = Profile((-180, -3), (-110, -5), (-30, -8), (20, -16), (60, -22), (95, -18))
AORTA_Y = Profile((-180, 0), (-110, 0), (-30, -12), (20, -30), (60, -36), (95, -30))
CAVA_X = Profile((-150, 14), (-60, 17), (0, 22), (40, 22))
CAVA_Y = Profile((-150, -5), (-60, -12), (-10, -8), (40, 4))


Shape = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]  # an ellipsoid: centre, radii, lean


class Frame(NamedTuple):
    """Distances that several organs are placed by, over the complete volume, in mm."""

    muscle: Array  # to the outside of the muscles, negative inside
    cavity: Array  # to the wall of the chest and belly, negative inside
    roof: Array  # to the diaphragm, negative below
    spine: Array  # to the column of vertebral bodies, negative inside


def outline(canvas: Canvas, shape: tuple[Profile, Profile, Profile], square: float) -> Array:
    """Distance to a body with squircles for cross-sections: u^2 + v^2 - square u^2 v^2 = 1."""
    width, depth = canvas.profile(shape[0]), canvas.profile(shape[1])
    u2 = (canvas.x / width) ** 2
    v2 = ((canvas.y - canvas.profile(shape[2])) / depth) ** 2
    level = np.sqrt(u2 + v2 - np.float32(square) * np.minimum(u2, 1) * np.minimum(v2, 1))
    slope = np.sqrt(u2 / (width * width) + v2 / (depth * depth))
    distance: Array = level * (level - 1) / np.maximum(slope, np.float32(1e-3))
    return distance


def paint_torso(canvas: Canvas, rng: np.random.RandomState) -> None:
    """Paint a complete subject: layers of the wall first, then the organs; later ones cover earlier ones."""
    fatness = rng.uniform(0, 1)
    frame = paint_wall(canvas, rng, fatness)
    paint_bones(canvas, frame)
    paint_lungs(canvas, rng, frame)
    paint_gut(canvas, rng, frame, fatness)
    kidneys = paint_kidneys(canvas, rng, fatness)
    paint_upper_abdomen(canvas, rng, frame, kidneys)
    paint_heart(canvas, rng, frame)
    paint_spine(canvas, frame)
    paint_vessels(canvas, rng)


def paint_wall(canvas: Canvas, rng: np.random.RandomState, fatness: float) -> Frame:
    """Skin, subcutaneous fat, muscle, the cavity with mediastinal fat; returns the frame for the organs."""
    x, y, z = canvas.x, canvas.y, canvas.z
    muscle = outline(canvas, OUTLINE, 0.45) + canvas.bumps[0]
    furrow = np.clip(1 - (x / 22) ** 2, 0, 1) * np.clip(-y / 80, 0, 1)
    muscle += furrow * furrow * 7
    front = np.clip(y / 90, -1, 1)
    belly = np.clip(1 - ((z + 90) / 90) ** 2, 0, 1) * np.clip(front, 0, 1)
    thickness = (4 + 12 * fatness) * canvas.profile(FAT) * (1 + 0.2 * canvas.bumps[1]) + 10 * fatness * belly
    skin = muscle - np.maximum(thickness, 2.5)
    canvas.paint(skin, TISSUES["skin"])
    canvas.paint(skin + 2.5, TISSUES["fat"])
    strands = TISSUES["muscle"] + 110 * np.clip(canvas.bumps[3] - 0.9, 0, 1.2)  # fat between the muscles
    canvas.paint(muscle, strands)
    cavity = outline(canvas, CAVITY, 0.35) + 1.2 * canvas.bumps[2]
    canvas.paint(cavity, 0.75 * TISSUES["fat"])
    # the diaphragm: two domes, the right one higher; lower towards the walls, and lowest at the back
    across = np.clip(x / 100, -1.2, 1.2)
    rho = np.minimum(across * across + np.clip((y - 10) / 74, -1.4, 1.4) ** 2, 1.6)
    dip = np.clip(1 - (x / 42) ** 2, 0, 1)
    height = rng.uniform(14, 26) + 7 * across - rho * (8 + 36 * rho * rho) - 8 * dip + 3 * canvas.bumps[0]
    roof = (z - height) * np.float32(0.75)
    column = canvas.tube(Profile((-180, 0), (180, 0)), SPINE_Y, SPINE_RADIUS, flat=0.82)
    return Frame(muscle, cavity, roof.astype(np.float32), column)


def paint_bones(canvas: Canvas, frame: Frame) -> None:
    """Ribs, breastbone, shoulder blades, collar bones, heads of the arms, wings of the pelvis."""
    x, y, z, cavity = canvas.x, canvas.y, canvas.z, frame.cavity
    inside = frame.muscle + 3
    forward = np.clip((y + 70) / 140, 0, 1)
    # ribs: rings in the shell around the cavity that descend to the front, cut off along the costal arch
    turn = (z + 50 * forward) / 23 + 40
    phase = np.abs(turn - np.floor(turn) - 0.5) * 23
    arch = -48 + 66 * forward * forward
    ribs = common(np.abs(cavity - 5) - 4, phase - 5, arch - z, z - 138, inside)
    canvas.paint(ribs, TISSUES["bone"])
    breastbone = common(np.abs(cavity - 6) - 5, np.abs(x) - 14, np.abs(z - 68) - 46)
    canvas.paint(common(breastbone, -y), TISSUES["bone"])
    canvas.paint(common(breastbone, -y) + 3.5, TISSUES["marrow"])
    side = np.abs(x)
    blade = common(np.abs(cavity - 17) - 3, np.abs(z - 92) - 36, y + 14, inside)
    canvas.paint(common(blade, 48 + 0.3 * (92 - z) - side, side - 96), TISSUES["bone"])
    wing = common(np.abs(cavity - 2) - 6, z + 122 + 0.004 * (y + 10) ** 2, y - 22, 36 - side)
    wing = common(wing, inside)
    canvas.paint(wing, TISSUES["bone"])
    canvas.paint(wing + 3, TISSUES["marrow"])
    for sign in (-1, 1):
        canvas.rod(
            [(sign * 14, 42, 112), (sign * 48, 36, 122), (sign * 84, 4, 120)], [6, 5, 6], TISSUES["bone"]
        )
        part, _ = canvas.box((sign * 96 - 24, -32, 80), (sign * 96 + 24, 16, 128))
        head = part.ellipsoid((sign * 96, -8, 104), (17, 19, 20))
        part.paint(head, TISSUES["bone"])
        part.paint(head + 3, 0.85 * TISSUES["fat"])


def paint_lungs(canvas: Canvas, rng: np.random.RandomState, frame: Frame) -> None:
    """Two lungs inside the ribs above the diaphragm, with branching vessels; trachea and bronchi."""
    middle = Profile((-60, 14), (40, 12), (60, 14), (90, 20), (120, 18), (150, 12))
    part, cut = canvas.box(
        (-115, -90, -80), (115, 90, 160), cavity=frame.cavity, roof=frame.roof, spine=frame.spine
    )
    mediastinum = part.profile(middle) + 3 * part.bumps[1] - np.abs(part.x + 3)
    lungs = common(cut["cavity"] + 1.5, -cut["roof"], mediastinum, 4 - cut["spine"])
    weight = (
        1 + 0.35 * np.clip(-part.y / 70, -1, 1) + 0.12 * part.bumps[3]
    )  # denser in dependent parts, where blood pools
    part.paint(lungs, TISSUES["lung"] * weight, LUNGS)
    for sign in (-1, 1):
        for _ in range(9):
            root = np.array((sign * 30.0, -10.0, 74.0)) + rng.normal(0, 4, 3)
            aim = np.array((sign * rng.uniform(62, 84), rng.uniform(-45, 40), rng.uniform(5, 115)))
            aim[0] *= 1 - max(aim[2] - 70, 0) / 110
            fork = root + 0.5 * (aim - root) + rng.normal(0, 4, 3)
            paint_vessel(canvas, [root, fork, aim], [5.0, 3.2, 1.6])
            paint_vessel(canvas, [fork, aim + rng.normal(0, 16, 3)], [3.0, 1.2])
    canvas.rod([(1, -2, 175), (1, -10, 140), (1, -16, 92)], [8, 8, 8], TISSUES["air"], 0)
    for sign in (-1, 1):
        canvas.rod([(1, -16, 93), (sign * 34, -14, 74), (sign * 46, -16, 60)], [7, 5.5, 4], TISSUES["air"])


def paint_vessel(canvas: Canvas, points: Sequence[Point], radius: Sequence[float]) -> None:
    """A vessel of the lung, painted only within the lung."""
    low, high = np.min(np.array(points), 0) - 8, np.max(np.array(points), 0) + 8
    part, _ = canvas.box(list(low), list(high))
    shape = np.full_like(part.x, 50)
    for (start, end), (first, last) in zip(pairwise(points), pairwise(radius), strict=True):
        shape = np.minimum(shape, part.capsule(start, end, first, last))
    part.paint(np.where(part.label == LUNGS, shape, part.voxel), 0.6 * TISSUES["blood"])


def paint_gut(canvas: Canvas, rng: np.random.RandomState, frame: Frame, fatness: float) -> None:
    """Contents of the abdomen: diaphragm, fat, loops of bowel, colon with gas, the psoas muscles."""
    part, cut = canvas.box((-130, -100, -230), (130, 110, 60), cavity=frame.cavity, roof=frame.roof)
    cavity, roof = cut["cavity"], cut["roof"]
    belly = common(cavity, roof)
    part.paint(belly, TISSUES["muscle"])
    part.paint(common(cavity + 2, roof + 4), TISSUES["fat"])
    folds = np.abs(part.bumps[3] + 0.6 * part.bumps[0])
    wall = TISSUES["bowel"] + 90 * part.bumps[2]
    reach = common(cavity + 5, roof + 10, part.z + 40, -12 - part.y)
    part.paint(common(reach, (folds - 0.75 + 0.25 * fatness) * 10), wall)
    part.paint(common(reach, (folds - 0.2) * 12), TISSUES["fluid"])
    for sign in (-1, 1):
        axis = (
            Profile((-230, 62 * sign), (-160, 48 * sign), (-60, 28 * sign)),
            Profile((-230, -5), (-160, -22), (-60, -38)),
        )
        psoas = part.tube(*axis, Profile((-230, 25), (-140, 21), (-80, 13), (-45, 5)))
        part.paint(common(psoas, part.z + 45), TISSUES["muscle"])
    ring = [(72, -8, -175), (76, 0, -110), (66, 30, -92), (28, 50, -104), (-24, 50, -100), (-66, 28, -74)]
    colon = np.array([*ring, (-80, -4, -100), (-78, -10, -175)], float) + rng.normal(0, 4, (8, 3))
    shape = np.full_like(cavity, 50)
    for start, end in pairwise(colon.tolist()):
        shape = np.minimum(shape, part.capsule(start, end, 15))
    shape = common(shape + 2.5 * part.bumps[3], cavity + 3, roof + 6)
    part.paint(shape, TISSUES["bowel"])
    gas = np.clip((part.y - 28) / 8 + part.bumps[1], 0, 1)  # gas rises to the front
    part.paint(shape + 3, (1 - gas) * (TISSUES["disc"] + 60 * part.bumps[2]) + gas * 15)


def organ_place(rng: np.random.RandomState, centre: Point, loose: float = 3.0) -> tuple[float, ...]:
    """An organ's centre in this subject: the reference, moved by about `loose` mm."""
    shift = rng.normal(0, loose, 3).clip(-2.2 * loose, 2.2 * loose)
    return tuple(float(c + s) for c, s in zip(centre, shift, strict=True))


def organ_size(rng: np.random.RandomState, *radii: float) -> tuple[float, ...]:
    """An organ's radii in this subject: scaled together, and each slightly on its own."""
    whole = rng.uniform(0.92, 1.09)
    return tuple(float(radius * whole * rng.uniform(0.95, 1.05)) for radius in radii)


def paint_kidneys(canvas: Canvas, rng: np.random.RandomState, fatness: float) -> list[Shape]:
    """Two kidneys in their fat, the right one lower, upper poles towards the spine; returns their shapes."""
    kidneys: list[Shape] = []
    for sign, height in ((1, -86.0), (-1, -72.0)):
        centre, radii = organ_place(rng, (sign * 52.0, -32.0, height)), organ_size(rng, 24, 22, 46)
        low = [c - 2.2 * r for c, r in zip(centre, radii, strict=True)]
        high = [c + 2.2 * r for c, r in zip(centre, radii, strict=True)]
        part, _ = canvas.box(low, high)
        lean = (-0.22 * sign, -0.12)
        kidneys.append((centre, radii, lean))
        bean = part.ellipsoid(centre, radii, lean) + 1.5 * part.bumps[1]
        part.paint(bean - 5 - 5 * fatness, TISSUES["fat"])
        hilum = part.ellipsoid((centre[0] - sign * 25, centre[1] + 8, centre[2]), (17, 15, 17), lean)
        bean = common(bean, -hilum)
        part.paint(bean, TISSUES["cortex"], KIDNEYS)
        pyramids = common(bean + 6, 5 * part.bumps[3] - 4)
        part.paint(pyramids, TISSUES["medulla"])
        part.paint(common(bean + 7, hilum - 8), TISSUES["fat"])
    return kidneys


def paint_upper_abdomen(
    canvas: Canvas, rng: np.random.RandomState, frame: Frame, kidneys: list[Shape]
) -> None:
    """Spleen and stomach under the left dome; liver, its vessels, gall bladder, pancreas."""
    whole, cut = canvas.box(
        (-120, -95, -125), (120, 100, 50), cavity=frame.cavity, roof=frame.roof, spine=frame.spine
    )
    limit = common(cut["cavity"] + 2.5, cut["roof"] + 4, 6 - cut["spine"])
    for kidney in kidneys:
        limit = common(limit, 2 - whole.ellipsoid(*kidney))
    tail = [(-52, -12, -42), (-20, 12, -52), (14, 16, -62)]
    whole.rod(tail, [9, 9, 11], 0.95 * TISSUES["spleen"])

    centre, radii = organ_place(rng, (-72.0, -26.0, -32.0)), organ_size(rng, 29, 42, 50)
    spleen = whole.ellipsoid(centre, radii, (0.15, 0.25)) + 2.5 * whole.bumps[2]
    inner = whole.ellipsoid((centre[0] + 42, centre[1] + 20, centre[2] - 4), (27, 30, 44))
    whole.paint(common(spleen, -inner, limit), TISSUES["spleen"], SPLEEN)

    centre, radii = organ_place(rng, (-42.0, 14.0, -14.0), 4), organ_size(rng, 28, 30, 31)
    filled = rng.uniform(0.8, 1.1)
    low = (centre[0] + 2, centre[1] + 20, centre[2] - 50)
    stomach = joined(whole.ellipsoid(centre, radii), whole.capsule(centre, low, 24 * filled, 20 * filled), 14)
    stomach = joined(stomach, whole.capsule(low, (14, 34, -66), 19 * filled, 10), 10) + 2 * whole.bumps[0]
    stomach = common(stomach, limit, -4 - common(spleen, -inner))
    whole.paint(stomach, TISSUES["bowel"], 0)
    level = np.clip((whole.y - rng.uniform(34, 44)) / 4, 0, 1)
    whole.paint(stomach + 4, (1 - level) * (TISSUES["fluid"] + 50 * whole.bumps[3]) + level * 12)

    centre, radii = organ_place(rng, (50.0, 4.0, -26.0)), organ_size(rng, 55, 62, 58)
    left = (centre[0] - 52, centre[1] + 30, centre[2] + 20)
    liver = joined(
        whole.ellipsoid(centre, radii, (-0.1, 0)),
        whole.ellipsoid(left, organ_size(rng, 52, 32, 27), (0.5, 0)),
        16,
    )
    under = whole.ellipsoid((centre[0] - 44, centre[1] - 4, centre[2] - 52), (44, 46, 42))
    liver = common(liver + 3 * whole.bumps[1], -under, limit)
    whole.paint(liver, TISSUES["liver"] + 10 * whole.bumps[3], LIVER)
    vessels = np.full_like(liver, 50)
    gate = (centre[0] - 28, centre[1] + 2, centre[2] - 10)
    for aim in ((34, -26, 6), (36, 20, -12), (6, 36, 16), (-26, 32, 28), (20, -6, -34)):
        tip = [c + a + s for c, a, s in zip(centre, aim, rng.normal(0, 5, 3), strict=True)]
        vessels = np.minimum(vessels, whole.capsule(gate, tip, 6, 2.5))
    for aim in ((38, 4, 14), (6, 8, 24), (24, -30, 20)):
        tip = [c + a for c, a in zip(centre, aim, strict=True)]
        vessels = np.minimum(vessels, whole.capsule((20, -4, 12), tip, 5.5, 2.5))
    whole.paint(common(vessels, liver + 2), TISSUES["vein"])
    gall = (centre[0] - 14, centre[1] + 40, centre[2] - 44)
    whole.paint(whole.ellipsoid(gall, organ_size(rng, 12, 13, 20), (-0.3, -0.3)), TISSUES["fluid"], 0)


def paint_heart(canvas: Canvas, rng: np.random.RandomState, frame: Frame) -> None:
    """The heart on the diaphragm, its apex to the left and front: walls, ventricles, atria, fat around."""
    centre, size = organ_place(rng, (-4.0, 16.0, 44.0), 2.5), rng.uniform(0.92, 1.06)
    part, cut = canvas.box((-110, -60, -50), (90, 95, 120), cavity=frame.cavity, roof=frame.roof)

    def spot(*offset: float) -> tuple[float, ...]:
        return tuple(c + size * o for c, o in zip(centre, offset, strict=True))

    left = part.capsule(spot(-12, -2, 4), spot(-46, 20, -18), 33 * size, 20 * size)
    right = part.capsule(spot(12, 18, 2), spot(-26, 30, -18), 25 * size, 16 * size)
    atria = np.minimum(part.ellipsoid(spot(26, 2, 14), (22 * size, 24 * size, 28 * size)),
                       part.ellipsoid(spot(-4, -24, 18), (28 * size, 19 * size, 22 * size)))  # fmt: skip
    heart = joined(joined(left, right, 10), atria, 10) + 1.5 * part.bumps[2]
    heart = common(heart, cut["cavity"] + 5, -cut["roof"] + 1)
    part.paint(common(heart - 2.5, cut["cavity"] + 2, -cut["roof"]), TISSUES["fat"], 0)
    part.paint(heart, TISSUES["heart"], HEART)
    chambers = np.minimum(part.capsule(spot(-14, -2, 2), spot(-40, 15, -13), 19 * size, 9 * size), atria + 4)
    chambers = np.minimum(chambers, common(right + 5, -2 - left))
    part.paint(common(chambers, heart + 4), TISSUES["blood"])


def paint_spine(canvas: Canvas, frame: Frame) -> None:
    """Vertebral bodies, discs, arches with processes (all labelled); the canal with the cord."""
    part, cut = canvas.box((-45, -105, -230), (45, 20, 230), column=frame.spine, muscle=frame.muscle)
    turn = part.profile(VERTEBRAE)
    phase = np.abs(turn - np.floor(turn) - 0.5)  # 0 at the middle of a vertebra, 0.5 at that of a disc
    radius, deep = part.profile(SPINE_RADIUS), part.y - part.profile(SPINE_Y)
    side = np.abs(part.x)
    behind = deep + 0.82 * radius + 7  # 0 at the centre of the canal
    canal = np.sqrt(side * side + behind * behind)
    shade = np.clip((phase - 0.36) * 14, 0, 1)
    arch = common(canal - 13, (phase - 0.4) * 26)
    wings = common(np.abs(behind + 2 + 0.2 * side) - 4.5, side - 1.75 * radius, (phase - 0.24) * 28)
    thorn = common(side - 3.8, np.abs(behind + 19) - 16, (phase - 0.33) * 28, cut["muscle"] + 5)
    back = np.minimum(np.minimum(arch, wings), thorn)
    part.paint(back, 0.75 * TISSUES["marrow"], SPINE)
    column = cut["column"] + 3.5 * np.clip(0.3 - phase, 0, 0.3)
    part.paint(column, TISSUES["bone"], SPINE)
    part.paint(column + 2.5, TISSUES["marrow"] + (TISSUES["disc"] - TISSUES["marrow"]) * shade)
    part.paint(canal - 8.5, TISSUES["fluid"], 0)
    part.paint(canal - 4.5, TISSUES["cord"])


def paint_vessels(canvas: Canvas, rng: np.random.RandomState) -> None:
    """The aorta from the heart to the pelvis (labelled); great veins, pulmonary artery, oesophagus."""
    wide = rng.uniform(0.95, 1.2)
    canvas.rod([(26, 6, 60), (25, 4, 92), (22, -2, 122), (34, 6, 138)], [9, 9, 8, 7], TISSUES["vein"], 0)
    canvas.rod([(-22, 8, 118), (22, 6, 112)], [6, 7], TISSUES["vein"], 0)
    canvas.rod([(-8, 36, 62), (-16, 14, 82)], [12, 12], TISSUES["vein"], 0)
    canvas.rod([(36, -6, 76), (-16, 10, 82), (-40, -10, 78)], [8, 10, 8], TISSUES["vein"], 0)
    part, _ = canvas.box((-50, -80, -160), (50, 40, 100))
    cava = part.tube(CAVA_X, CAVA_Y, Profile((-160, 9), (40, 11)))
    part.paint(common(cava, part.z - 38, -142 - part.z), TISSUES["vein"], 0)
    gullet = part.tube(
        Profile((-30, -14), (10, -8), (100, -3)),
        Profile((-30, 0), (10, -22), (100, -34)),
        Profile((0, 7), (9, 7)),
    )
    part.paint(common(gullet, 4 - part.z), TISSUES["muscle"], 0)
    trunk = part.tube(AORTA_X, AORTA_Y, Profile((-140, 9 * wide), (-20, 10.5 * wide), (90, 12 * wide)))
    part.paint(common(trunk, part.z - 94, -140 - part.z), TISSUES["blood"], AORTA)
    arch = [(4, 18, 56), (13, 20, 74), (12, 15, 92), (2, 4, 105), (-10, -14, 107), (-18, -28, 94)]
    canvas.rod(
        arch, [13 * wide, 13.5 * wide, 13 * wide, 12.5 * wide, 12 * wide, 12 * wide], TISSUES["blood"], AORTA
    )
    for start, end in (
        ((4, 6, 114), (16, -4, 145)),
        ((-5, -6, 114), (-14, -10, 150)),
        ((-12, -16, 112), (-34, -14, 140)),
    ):
        canvas.rod([start, end], [5, 5], TISSUES["blood"], 0)
    for sign in (-1, 1):
        canvas.rod([(-5, 0, -136), (sign * 34, 4, -185)], [7.5, 6.5], TISSUES["blood"], 0)
