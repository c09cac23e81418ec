"""The repository itself: what README, requirements, metadata and configurations promise; the house rules."""

import ast
import configparser
import filecmp
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pretext3d
import pytest
import yaml
from pretext3d.networks.factory import ENCODERS
from pretext3d.publishing.traces import machine_traces

from tools.bundles.sync import TEMPLATE, configurations, differences

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted(path.parent.parent for path in ROOT.glob("bundles/*/configs/metadata.json"))
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
DOCS = "-r requirements-docs.txt  # its tests, and the build of the site in .ci/run"
WITHOUT_DATA = {"avsdb"}  # bundles whose pre-training generates its volumes
DATA_KEYS = {
    "dataset_dir", "datalist", "slices", "subjects", "modalities", "cache_dir", "crops_per_volume",
    "val_fraction", "split_seed", "fold", "test_fraction", "frames", "pixdim", "channels",
    "normalisation",
}  # fmt: skip
BUNDLE_DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("bundles/*/*/README.md"))


def tracked_files() -> list[Path]:
    """The files that belong to the repository: what git holds, or would hold."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def tracked_texts() -> Iterator[tuple[Path, str]]:
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data:
            yield path.relative_to(ROOT), data.decode()


def readme_command(name: str) -> str:
    """The fenced block after `<!-- command: name -->`, as .ci/run reads it."""
    found = re.findall(rf"^<!-- command: {name} -->\n```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"README.md has {len(found)} commands named {name}"
    return found[0].rstrip("\n")


def shell_lines(text: str) -> list[str]:
    """The commands of a document's shell blocks, each whole on one line."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\\\n", " ", block).splitlines()]
    return [part.strip() for line in lines for part in line.split("&&")]


def readme_keys(heading: str) -> set[str]:
    """First column of the table that follows a line of README.md."""
    table = README.split(heading, 1)[1].split("|---", 1)[1].split("\n\n", 1)[0]
    first = re.findall(r"^\|([^|]+)\|", table, re.MULTILINE)
    return {key for cell in first for key in re.findall(r"`(\w+)`", cell)}


def pins(name: str) -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return dict(line.split("==") for line in lines if "==" in line)


def config_keys(*paths: Path) -> set[str]:
    return {key.split("::")[0] for path in paths for key in yaml.safe_load(path.read_text())}


# ------------------------------------------------------------------------------------------------- README
def test_readme_has_the_two_commands_that_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    names = re.findall(r"\$\(readme_command (\w+)\)", ci)
    assert names == ["pretrain", "test"]
    for name in names:
        command = readme_command(name)
        assert "\n" not in command
        assert command.startswith(
            "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements"
        )
    assert readme_command("pretrain").endswith(
        "--config_file bundles/vectorpose/configs/train.yaml --profile laptop --max_epochs 4"
    )
    assert "pytest" in readme_command("test")


def test_ci_script_is_executable_and_reads_the_commands() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    reader = re.search(r"^readme_command\(\) \{.*?^\}$", script.read_text(), re.MULTILINE | re.DOTALL)
    assert reader is not None
    for name in ("pretrain", "test"):
        read = subprocess.run(
            ["bash", "-euc", f"{reader[0]}\nreadme_command {name}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert read.stdout == readme_command(name) + "\n"
    missing = subprocess.run(
        ["bash", "-euc", f"{reader[0]}\nreadme_command nonsense"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode == 1
    assert "nonsense" in missing.stderr


@pytest.mark.parametrize(("document", "runs"), [("README.md", 12), *((name, 0) for name in DOCUMENTS)])
def test_commands_name_files_and_keys_that_exist(document: str, runs: int) -> None:
    seen = 0
    for line in shell_lines((ROOT / document).read_text()):
        words = shlex.split(line, comments=True)
        options = {word for word in words if word.startswith("--")}
        for word in words:
            if word.startswith(("tools/", "bundles/")):
                assert (ROOT / word).exists(), line
        tools = [word for word in words if word.startswith("tools/") and word.endswith(".py")]
        assert all(f'"{option}"' in (ROOT / tool).read_text() for tool in tools for option in options), line
        if "monai.bundle" not in words or words[words.index("monai.bundle") + 1] != "run":
            continue
        seen += 1
        value = words[words.index("--config_file") + 1].replace("there/", "bundles/")  # downloaded ones
        files = [ROOT / name for name in (ast.literal_eval(value) if value.startswith("[") else [value])]
        assert all(path.is_file() for path in files), line
        keys = words[words.index("monai.bundle") :]
        given = {word[2:] for word in keys if word.startswith("--")} - {"config_file", "tracking"}
        assert given <= config_keys(*files), line
    assert seen >= runs  # train, fine-tune, evaluate, infer; classes; 2D; several processes


@pytest.mark.parametrize(
    "document",
    ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", *DOCUMENTS, *BUNDLE_DOCUMENTS],
)
def test_relative_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text()):
        if not urlsplit(target).scheme:
            path = target.partition("#")[0]  # MkDocs checks what follows
            assert (ROOT / document).parent.joinpath(path).exists(), f"{document}: {target}"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_every_key_of_the_readme_is_in_the_configurations(bundle: Path) -> None:
    general, finetuning = readme_keys("The same in every bundle"), readme_keys("In `finetune.yaml` also")
    assert len(general) == 32
    assert len(finetuning) == 18
    of_data = DATA_KEYS if bundle.name in WITHOUT_DATA else set()
    assert of_data <= general
    assert general - of_data <= config_keys(bundle / "configs" / "train.yaml")
    # each is refused when given to a run: MONAI wants the key dataset_dir, which may only be empty there
    assert of_data & config_keys(bundle / "configs" / "train.yaml") <= {"dataset_dir"}
    assert general | finetuning <= config_keys(bundle / "configs" / "finetune.yaml")
    assert readme_keys("In some files only") == {
        "pictures",
        "probe",
        "class_file",
        "ordered_classes",
        "measured",
        "weights",
        "tolerance_mm",
        "tracking",
    }
    files = {"pictures": ("train",), "probe": ("train",), "class_file": ("finetune_classification",)}
    files["ordered_classes"] = ("finetune_classification", "evaluate_classification")
    files["measured"] = ("evaluate", "evaluate_classification")
    files["tolerance_mm"] = ("evaluate",)
    files["weights"] = ("evaluate", "evaluate_classification", "inference")
    for key, names in files.items():
        assert all(key in config_keys(bundle / "configs" / f"{name}.yaml") for name in names)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["finetune", "finetune_classification"])
def test_every_key_of_fine_tuning_has_an_effect(bundle: Path, name: str) -> None:
    """A key of the README that no component refers to would be accepted and do nothing."""
    text = (bundle / "configs" / f"{name}.yaml").read_text()
    documented = readme_keys("In `finetune.yaml` also") | {"ordered_classes", "class_file"}
    keys = documented & config_keys(bundle / "configs" / f"{name}.yaml")
    assert {key for key in keys if not re.search(rf"@{key}\b", text)} == set()


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_bundles_require_what_their_template_does(bundle: Path) -> None:
    template = ROOT / "tools" / "bundles" / "template"
    needs = [
        json.loads((folder / "configs" / "metadata.json").read_text())["required_packages_version"]
        for folder in (template, bundle)
    ]
    assert needs[0].keys() <= needs[1].keys()


def test_readme_names_the_encoders_and_bundles_that_exist() -> None:
    row = next(line for line in README.splitlines() if line.startswith("| `encoder`"))
    assert set(re.findall(r"`(\w+)`", row)) - {"encoder"} == set(ENCODERS)
    ready = set(re.findall(r"^\| \[(\w+)\]\(bundles/\1\) .*\| ready \|$", README, re.MULTILINE))
    assert ready == {bundle.name for bundle in BUNDLES}


# ------------------------------------------------------------------------------------------- requirements
@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("requirements.txt", ["-e ./shared"]),
        ("requirements-dev.txt", ["-r requirements.txt", DOCS]),
        ("requirements-docs.txt", ["-r requirements.txt"]),
    ],
)
def test_requirements_are_exact_pins_with_reasons(name: str, others: list[str]) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    wrong = [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==\d+(\.\d+)+ +# \S.*", line)]
    assert wrong == others
    assert name != "requirements.txt" or lines[-1] == others[0]


@pytest.mark.parametrize(
    ("folders", "files"),
    [
        (("shared/pretext3d", "tools"), ("requirements.txt",)),
        (("tools/site",), ("requirements.txt", "requirements-docs.txt")),
        (("tests",), ("requirements.txt", "requirements-dev.txt")),
    ],
)
def test_what_the_code_imports_is_pinned(folders: tuple[str, ...], files: tuple[str, ...]) -> None:
    provided = importlib.metadata.packages_distributions()
    pinned = {name.replace("_", "-") for file in files for name in pins(file)}
    allowed = {"jaxtyping"}  # optional: annotations.py falls back where it is missing
    site = ROOT / "tools" / "site"  # has requirements of its own
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for path in (path for path in paths if "tools" not in folders or site not in path.parents):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += (
                [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            )
            for top in {name.split(".")[0] for name in names} - allowed - {"pretext3d", "tests", "tools"}:
                sources = {re.sub("[_.]", "-", name.lower()) for name in provided.get(top, (top,))}
                local = (ROOT / "tools" / f"{top}.py").is_file() or (path.parent / f"{top}.py").is_file()
                assert top in sys.stdlib_module_names or local or sources & pinned, (
                    f"{path.name} imports {top}"
                )


# ------------------------------------------------------------------------------------------------- bundles
def test_there_is_a_bundle() -> None:
    assert "vectorpose" in [bundle.name for bundle in BUNDLES]
    assert {path.name for path in (ROOT / "bundles").iterdir()} == {bundle.name for bundle in BUNDLES}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_bundle_has_its_files(bundle: Path) -> None:
    expected = ["LICENSE", "docs/README.md", "configs/metadata.json", "configs/logging.conf"]
    expected += [f"configs/{name}" for name in configurations()]
    assert [name for name in expected if not (bundle / name).is_file()] == []
    assert filecmp.cmp(bundle / "LICENSE", ROOT / "LICENSE", shallow=False)
    if list((bundle / "models").glob("*.pt")):
        assert (bundle / "models" / "README.md").is_file(), "weights without a word on where they come from"
    log = configparser.RawConfigParser()
    log.read(bundle / "configs" / "logging.conf")
    assert {"loggers", "handlers", "formatters", "logger_root"} <= set(log.sections())


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_metadata_is_valid(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    schema = json.loads((ROOT / "tools" / "schema" / "meta_schema_20240725.json").read_text())
    jsonschema.validate(metadata, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**metadata, "version": 1}, schema)
    assert metadata["version"] in metadata["changelog"]
    pinned = pins("requirements.txt")
    stated = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    assert stated == {name: pinned.get(name) for name in stated}
    data = metadata["network_data_format"]
    assert next(iter(data["inputs"])) == "image"
    assert next(iter(data["outputs"])) == "pred"
    assert len(data["outputs"]["pred"]["channel_def"]) == data["outputs"]["pred"]["num_channels"]


def test_common_blocks_are_the_template_s() -> None:
    assert {path: "differs" for bundle in BUNDLES for path in differences(bundle)} == {}


def expressions(node: object) -> Iterator[str]:
    """Every `$` expression of a configuration."""
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from expressions(value)
    elif isinstance(node, str) and node.startswith("$"):
        yield node


@pytest.mark.parametrize(
    "path",
    [*sorted(ROOT.glob("bundles/*/configs/*.yaml")), *sorted((TEMPLATE / "configs").glob("*.yaml"))],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_configurations_can_be_read(path: Path) -> None:
    """Block style: short lines, and no programming: what takes more than 80 characters is a function."""
    text = path.read_text()
    lengths = sorted(len(line) for line in text.splitlines())
    assert lengths[-1] <= 120
    assert lengths[len(lengths) // 2] <= 32 or len(lengths) < 150
    found = list(expressions(yaml.safe_load(text)))
    assert [e for e in found if len(e) > 80] == []
    assert [e for e in found if re.search(r"\blambda\b|\bfor\b", e)] == []


@pytest.mark.parametrize(
    "path",
    [
        path
        for name in ("train", "finetune", "finetune_classification", "inference")
        for path in [
            *sorted(ROOT.glob(f"bundles/*/configs/{name}.yaml")),
            TEMPLATE / "configs" / f"{name}.yaml",
        ]
    ],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_every_key_has_an_effect(path: Path) -> None:
    """A key that nothing in its file refers to is read by name, by MONAI or our code, or does nothing."""
    text = path.read_text()
    unused = {key for key in yaml.safe_load(text) if not re.search(rf"@{key}\b", text)}
    by_monai = {"initialize", "run", "finalize"}
    assert unused - by_monai <= {"bundle_root", "seed", "class_names"}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("bundles/*/configs/*.yaml")), ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_overrides_are_checked_before_a_run_begins(path: Path) -> None:
    called = [
        item["_target_"] for item in yaml.safe_load(path.read_text())["initialize"] if isinstance(item, dict)
    ]
    checks = [name for name in called if name.endswith((".check_overrides", ".check_profile"))]
    assert len(checks) == 1
    assert called.index(checks[0]) < called.index("pretext3d.training.session.begin")


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("bundles/*/configs/*.yaml")), ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_a_file_alone_can_be_merged(path: Path) -> None:
    """An overlay that is run without its base file reaches our code, which says so in one line."""
    keys = [key.removeprefix("+") for key in yaml.safe_load(path.read_text())]
    parents = {key for key in keys if "::" not in key}
    assert {key.split("::")[0] for key in keys if "::" in key} <= parents


# --------------------------------------------------------------------------------------------- house rules
def test_package_version_is_in_the_changelog() -> None:
    assert f"\n## {pretext3d.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_no_file_is_over_400_lines() -> None:
    written = [one for one in tracked_texts() if one[0].suffix in {".py", ".yaml"}]
    lengths = {path: text.count("\n") for path, text in written}
    assert len(lengths) > 20
    assert {str(path): lines for path, lines in lengths.items() if lines > 400} == {}


def test_no_machine_paths_or_hosts() -> None:
    examples = ("/data/", "/scratch/$USER/", "/usr/bin:")  # of every machine, in documents and tests
    found = {
        (str(path), trace)
        for path, text in tracked_texts()
        for trace in machine_traces(text, [])
        if not trace.startswith(examples)
    }
    assert found == set()
