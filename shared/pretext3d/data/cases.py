"""Cases from data on disk: MSD and nnU-Net folders, plain folders of volumes or pictures, DICOM.

A case is a dictionary of plain values: `id` (unique), `image` (a path, or one path per channel), `label` (a
path, where there is one), and what its datalist states: `fold`, `subject`, `landmark` (x y z in world mm,
RAS), `landmark_mask` (a path) ... A CSV file or a BIDS name may also give the `subject`. `name` is the id
within the data set and `source` the folder of that data set; splits depend on these and on `subject`. With
several data sets `source_name` is the short name of the folder. `fault` is the reason why what a search has
found cannot be used.
"""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pretext3d.data.bids import attach_labels, bids_name, check_modalities, is_aside, join_modalities
from pretext3d.data.datalists import (
    find_datalist,
    is_resource_fork,
    listed_cases,
    paths_of,
    read_json,
)
from pretext3d.data.dataset import default_cache_dir
from pretext3d.data.dicom import find_stacks, is_dicom
from pretext3d.data.images import PICTURES, is_picture
from pretext3d.data.paths import existing_folder
from pretext3d.data.subjects import set_subjects
from pretext3d.data.volumes import extensions, strip_extension
from pretext3d.errors import UserError
from pretext3d.messages import printable

__all__ = ["Case", "find_cases"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

IMAGE_FOLDERS = {"imagestr": "labelstr", "images": "labels"}  # folders of images: of their labels; lower case
LABEL_FOLDERS = {"labels", "label", "labelstr", "labelsts", "labelsval"}
SEGMENTATION = ".seg.nrrd"  # of 3D Slicer, next to its image or among the labels
LABEL_ENDINGS = re.compile(r"[._-](seg|dseg|probseg|label|labels|labelmap|mask|segmentation)$", re.IGNORECASE)
CHANNEL_ENDING = re.compile(r"(.+)_(\d{4})$")


def find_cases(
    dataset_dir: str | Path | Sequence[str | Path],
    datalist: str = "",
    require_label: bool = False,
    cache_dir: str = "",
    spatial_dims: int = 3,
    subjects: str = "",
    modalities: Sequence[str] | str | None = None,
) -> list[Case]:
    """All cases of one folder or of several, each in one of these layouts.

    - a datalist (MSD): the lists `training` and, with labels, `validation`, of entries with `image`, `label`
      and more; paths are relative to the datalist's folder (or, where the first image is not there, to
      `dataset_dir`);
    - nnU-Net v2 raw: imagesTr/x_0000.nii.gz, x_0001 ..., one file per channel; labelsTr/x.nii.gz;
    - imagesTr and labelsTr, or images and labels, with the same file names in both; a label may also be a
      segmentation of 3D Slicer, x.seg.nrrd, there or next to its image x;
    - any folder, searched recursively for .nii .nii.gz .nrrd .nhdr .mha .mhd and DICOM series. Hidden files,
      folders named labels, labelsTr, labelsTs ... and files named ..._seg, ..._label, ..._mask are not
      images. BIDS names (sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz) give the `subject`; the folders
      derivatives and sourcedata of a BIDS data set hold no images, but a file ..._dseg there is the label of
      its session.

    In 2D, .png .jpg .jpeg .tif .tiff also count as images and labels; each DICOM file without a position in
    the patient (an X-ray) is a case, and those of one series share a `subject`; a volume is one case (see
    `slices.slice_cases` for its slices).

    Args:
        dataset_dir: Folder, or several folders whose cases are joined.
        datalist: Path of a datalist, absolute or relative to the folder; '' = the dataset.json in each
            folder, where there is one; 'none' = no datalist: every volume in the folder, listed or not.
        require_label: Leave out cases without a label.
        cache_dir: Folder for links to DICOM slices; '' = `default_cache_dir()`.
        spatial_dims: Number of spatial axes, 3 or 2; with 2, pictures are included.
        subjects: Path of a CSV file with the columns id and subject (see `set_subjects`); '' = none.
        modalities: BIDS suffixes, for example [T1w, FLAIR], that become the channels of one case per session
            (see `join_modalities`); None = each file is a separate case.

    Returns:
        The cases, in the order of the datalist or of their paths.

    Raises:
        UserError: For a folder that does not exist, is not a folder, or holds no volume; for a datalist that
            is missing or invalid.
    """
    folders = [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    if not folders:
        raise UserError("dataset_dir: found an empty list, expected a folder")
    wanted = check_modalities(modalities)
    cases: list[Case] = []
    for given in folders:
        folder = existing_folder(given)
        listed = find_datalist(folder, datalist, alone=len(folders) == 1)
        content = read_json(listed) if listed else {}
        if wanted and listed:
            raise UserError(
                f"modalities: found {', '.join(wanted)}, but {listed} lists the cases; expected BIDS names "
                "found by a folder search; give datalist: none to search the folder"
            )
        if listed and "training" in content:
            found = name_cases(listed_cases(listed, content, folder), folder)
            if not datalist:
                tell_unlisted(folder, listed, found, extensions(spatial_dims))
        elif listed and "channel_names" not in content and "file_ending" not in content:
            raise UserError(
                f"{listed}: found the keys {sorted(content)}, expected 'training' (a list of entries with "
                "'image') or nnU-Net's 'channel_names'; give datalist: none to search the folder instead"
            )
        else:
            cache = cache_dir or default_cache_dir()
            found = search_folder(folder, cache, listed is not None, wanted, spatial_dims)
        cases += [{**case, "source": str(folder)} for case in found]
    short = short_names([case["source"] for case in cases])
    if len(short) > 1:
        cases = [{**case, "source_name": short[case["source"]]} for case in cases]
    make_ids_unique(cases)
    if subjects:
        cases = set_subjects(cases, subjects)
    if require_label:
        cases = labelled_alone(cases, ", ".join(map(str, folders)))
    return cases


def labelled_alone(cases: Sequence[Case], where: str) -> list[Case]:
    """The cases that have a label; the number of the others is logged, with the first of them.

    Args:
        cases: Cases.
        where: Name of their folders, for messages.

    Raises:
        UserError: If none has.
    """
    labelled = [case for case in cases if "label" in case]
    bare = [case["id"] for case in cases if "label" not in case]
    if not labelled:
        raise UserError(
            f"dataset_dir: none of the {len(cases)} cases in {where} has a label; expected 'label' in "
            "dataset.json, or labelsTr/ next to imagesTr/ with the same names"
        )
    if bare:
        shown = f"{', '.join(bare[:3])}{f' and {len(bare) - 3} more' if len(bare) > 3 else ''}"
        logger.warning("%d of %d cases have no label and are left out: %s", len(bare), len(cases), shown)
    return labelled


def tell_unlisted(folder: Path, listed: Path, cases: Sequence[Case], endings: tuple[str, ...]) -> None:
    """Log the number of volumes in a folder that its own datalist does not list."""
    known = {os.path.realpath(path) for case in cases for path in paths_of(case["image"])}
    marks = ("label", "landmark_mask")
    known |= {os.path.realpath(case[key]) for case in cases for key in marks if key in case}
    files = (path for _, found in walk(folder) for path in found)
    volumes = {os.path.realpath(path) for path in files if path.name.lower().endswith(endings)}
    if volumes - known:
        logger.info(
            "%s: %d volumes of the folder are not listed; datalist: none uses every volume instead",
            listed,
            len(volumes - known),
        )


def walk(folder: Path, images: bool = True) -> Iterator[tuple[Path, list[Path]]]:
    """Folders with their files, sorted; links are followed once, hidden files and folders are left out.

    Args:
        folder: Folder to search recursively.
        images: Leave out the folders that hold no images: labels and BIDS derivatives.
    """
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if not is_resource_fork(Path(f))]
        aside = {f for f in folders if f.lower() in LABEL_FOLDERS or is_aside(f, folders, files)}
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not (images and f in aside))
        yield Path(place), [Path(place, f) for f in sorted(files) if not f.startswith(".")]


def search_folder(
    folder: Path,
    cache_dir: str,
    nnunet: bool = False,
    modalities: Sequence[str] = (),
    spatial_dims: int = 3,
) -> list[Case]:
    """The cases of a folder without a datalist, with the labels of the same names.

    Args:
        folder: Folder to search recursively; in an nnU-Net raw folder only imagesTr.
        cache_dir: Folder for links to DICOM slices.
        nnunet: Whether dataset.json declares nnU-Net raw: imagesTr only, and _0000 is a channel number.
        modalities: BIDS suffixes that become the channels of one case per session.
        spatial_dims: Number of spatial axes, 3 or 2; with 2, pictures are included.
    """
    endings = extensions(spatial_dims)
    pairs = [(p, q) for p in sorted(folder.iterdir()) if p.is_dir() for q in label_folder(p)]
    root = folder / "imagesTr" if nnunet and (folder / "imagesTr").is_dir() else folder
    cases: list[Case] = []
    slices: list[Path] = []
    labels_left = pictures = 0
    for _, files in walk(root):
        volumes = [p for p in files if p.name.lower().endswith(endings)]
        pictures += sum(is_picture(p.name) for p in files)
        images = [p for p in volumes if not LABEL_ENDINGS.search(strip_extension(p.name))]
        labels_left += len(volumes) - len(images)
        cases += group_channels(images, certain=nnunet, labels=[q for _, q in pairs])
        slices += [p for p in files if not p.name.lower().endswith(endings) and is_dicom(p)]
    if labels_left:
        logger.info(
            "%s: %d files named like labels (..._seg, ..._mask) are not used as images", folder, labels_left
        )
    for stack in find_stacks(slices, cache_dir, spatial_dims):
        known = {"subject": stack.subject, "fault": stack.reason}
        cases.append({"image": stack.read, "path": str(stack.path)} | {k: v for k, v in known.items() if v})
    if not cases:
        hint = f"; spatial_dims: 2 reads its {pictures} pictures ({' '.join(PICTURES)})" if pictures else ""
        what = "volumes" if spatial_dims == 3 else "pictures or volumes"
        raise UserError(
            f"dataset_dir: no {what} found in {root} or below it; looked for {' '.join(endings)} "
            f"and DICOM series (.dcm, or files without a suffix that have a DICOM header){hint}"
        )
    for case in cases:
        for images_folder, labels_folder in pairs:
            if Path(case["path"]).is_relative_to(images_folder):
                stem = strip_extension(str(labels_folder / Path(case["path"]).relative_to(images_folder)))
                found = [stem + e for e in (*endings, SEGMENTATION) if Path(stem + e).is_file()]
                case.update({"label": found[0]} if found else {})
        beside = strip_extension(case["path"]) + SEGMENTATION
        if "label" not in case and Path(beside).is_file():
            case["label"] = beside
    return name_cases(with_bids(cases, folder, modalities), root)


def with_bids(cases: list[Case], folder: Path, modalities: Sequence[str]) -> list[Case]:
    """The cases with the subject and label of their BIDS names, and on request modalities as channels."""
    if modalities:
        count = len(cases)
        cases = join_modalities(cases, modalities, folder)
        logger.info("%s: %d files are %d sessions of %s", folder, count, len(cases), ", ".join(modalities))
    named = [(case, bids_name(case["path"])) for case in cases]
    for case, name in named:
        case.update({"subject": name.subject} if name else {})
    if any(name for _, name in named):
        attach_labels(cases, [p for _, files in walk(folder, images=False) for p in files], folder)
    return cases


def label_folder(images: Path) -> list[Path]:
    """The folder of labels next to a folder of images: labelsTr for imagesTr, labels for images."""
    wanted = IMAGE_FOLDERS.get(images.name.lower())
    return [p for p in images.parent.iterdir() if p.is_dir() and p.name.lower() == wanted]


def group_channels(files: Sequence[Path], certain: bool, labels: Sequence[Path]) -> list[Case]:
    """The volumes of one folder as cases; x_0000 and x_0001 are one case where the names are unambiguous.

    They are unambiguous when every name in the folder ends in four digits, each x has a _0000 and no gap,
    and there are several x or a label is named x. So scan_0000, scan_0001, scan_0002 alone are three cases.
    """
    groups: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in files:
        match = CHANNEL_ENDING.fullmatch(strip_extension(path.name))
        if match:
            groups[match[1]][int(match[2])] = path
    whole = sum(map(len, groups.values())) == len(files) and all(
        0 in g and max(g) < len(g) for g in groups.values()
    )
    named = (
        {strip_extension(p.name) for folder in labels for p in folder.iterdir()} if whole and files else set()
    )
    if not (certain or (whole and (named & set(groups) or (len(groups) > 1 and not named)))):
        groups.clear()
    grouped = {path for group in groups.values() for path in group.values()}
    cases: list[Case] = [{"image": str(p), "path": str(p)} for p in files if p not in grouped]
    for name, group in groups.items():
        paths = [str(group[i]) for i in sorted(group)]
        cases.append(
            {"image": paths if len(paths) > 1 else paths[0], "path": str(group[min(group)].parent / name)}
        )
    return cases


def name_cases(cases: list[Case], root: Path) -> list[Case]:
    """Give each case its `name`: the file's name, or the path below `root` where two files share a name."""
    paths = [strip_extension(c.pop("path", paths_of(c["image"])[0])) for c in cases]
    distinct = Counter(Path(p).name for p in set(paths))
    for case, path in zip(cases, paths, strict=True):
        name = Path(path).name if distinct[Path(path).name] == 1 else os.path.relpath(path, root)
        case["name"] = printable(name)
    return cases


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest ends of distinct paths that tell them apart.

    Examples:
        >>> short_names(["/a/heart", "/a/heads/images", "/b/lungs/images"])
        {'/a/heart': 'heart', '/a/heads/images': 'heads/images', '/b/lungs/images': 'lungs/images'}
    """
    names = {path: Path(path).name for path in paths}
    for length in range(2, max((len(Path(path).parts) for path in names), default=0) + 1):
        count = Counter(names.values())
        for path, name in names.items():
            if count[name] > 1:
                names[path] = "/".join(Path(path).parts[-length:])
    return names


def make_ids_unique(cases: Sequence[Case]) -> None:
    """Set `id`: the name, prefixed by the folder's where data sets share it; #2 ... where listed again."""
    sources: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        sources[case["name"]].add(case["source"])
    used: Counter[str] = Counter()
    for case in cases:
        shared = len(sources[case["name"]]) > 1
        name = f"{Path(case['source']).name}/{case['name']}" if shared else case["name"]
        used[name] += 1
        case["id"] = name if used[name] == 1 else f"{name}#{used[name]}"
