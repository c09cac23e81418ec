"""The project file of the package: what it declares, and what the code imports; one version in all places."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pretext3d
import pytest
import tomllib
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from pretext3d.extras import EXTRAS

from tests.bundles.command import SERVER, environment

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "shared" / "pyproject.toml").read_text())["project"]
WITH_FALLBACK = {"jaxtyping"}  # tests alone need it, see annotations.py
BY_MONAI = {  # packages that MONAI imports for what we configure, and our own code does not
    "einops": "UNETR, ViT and SwinUNETR",
    "tensorboard": "TensorBoardStatsHandler",
    "fire": "python -m monai.bundle",
}


def names(requirements: list[str]) -> set[str]:
    return {Requirement(line).name.lower().replace("_", "-") for line in requirements}


BASE = names(PROJECT["dependencies"])
OPTIONAL = {extra: names(PROJECT["optional-dependencies"][extra]) for extra in EXTRAS}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Top-level modules that a file imports, without Python's, and whether importing it needs them."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.Try)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING")
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in {one.split(".")[0] for one in found} - sys.stdlib_module_names - {"pretext3d", ""}:
            yield name, id(node) not in inside


def test_what_the_package_imports_is_declared() -> None:
    """A module of an extra is imported where it is needed; any other is of a dependency."""
    provided = importlib.metadata.packages_distributions()
    used: set[str] = set()
    for path in sorted((ROOT / "shared" / "pretext3d").rglob("*.py")):
        for name, at_import in imports(path):
            sources = {source.lower().replace("_", "-") for source in provided.get(name, ())}
            optional = {extra for extra, packages in OPTIONAL.items() if sources & packages}
            allowed = sources & BASE or (not at_import and (optional or name in WITH_FALLBACK))
            assert allowed, f"{path.relative_to(ROOT)} imports {name}"
            used |= sources
    assert BASE - used == set(BY_MONAI) - used, "declared, and not imported"


def test_extras_are_those_that_messages_name() -> None:
    of_code = {extra: names(list(packages)) for extra, packages in EXTRAS.items()}
    assert {extra: OPTIONAL[extra] for extra in of_code} == of_code


def test_requirements_have_a_lower_bound_that_the_pins_satisfy() -> None:
    pins = read_pins("requirements.txt") | read_pins("requirements-docs.txt")
    optional = [lines for extra, lines in PROJECT["optional-dependencies"].items() if extra != "label"]
    for line in [*PROJECT["dependencies"], *(line for extra in optional for line in extra)]:
        requirement = Requirement(line)
        assert [one.operator for one in requirement.specifier] == [">="], line
        assert requirement.specifier.contains(pins[requirement.name.replace(".", "-")]), line


def test_the_extra_label_has_versions_that_ran_with_monai_label() -> None:
    """Its server's environment is tested (`tests/integration`); upper bounds are those of its packages."""
    pins = read_pins("tools/monai_label/requirements.txt")
    for line in PROJECT["optional-dependencies"]["label"]:
        requirement = Requirement(line)
        if requirement.name != "torchvision":  # in install.sh, with torch
            assert requirement.specifier.contains(pins[requirement.name.replace("_", "-")]), line
    page = (ROOT / "docs" / "monai-label.md").read_text()
    (named,) = re.findall(r"pip install --no-deps (monailabel==.+)", page)
    assert {*named.split()} <= {f"{name}=={version}" for name, version in pins.items()}


def read_pins(file: str) -> dict[str, str]:
    """The version of each package in a requirements file, by its name in lower case."""
    lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    return dict(line.lower().split("==") for line in lines if "==" in line)


def test_the_project_s_readme_and_licence() -> None:
    assert (ROOT / "shared" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert PROJECT["license"] == "Apache-2.0"
    start = (ROOT / "README.md").read_text().partition("Each method")[0]  # one text in both
    assert (ROOT / "shared" / "README.md").read_text().startswith(start)
    assert not re.findall(r"\]\((?!https?:)", (ROOT / "shared" / "README.md").read_text())


def test_the_version_has_one_source() -> None:
    """pyproject.toml reads version.py; weights state the version that made them."""
    assert "version" in PROJECT["dynamic"]
    text = (ROOT / "shared" / "pretext3d" / "version.py").read_text()
    assert re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE) == [pretext3d.__version__]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == pretext3d.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pretext3d.__version__
    wheel = f"pip install pretext3d-{pretext3d.__version__}-py3-none-any.whl\n"
    assert wheel in (ROOT / "shared" / "README.md").read_text()
    assert citation["license"] == PROJECT["license"]
    released = [Version(heading) for heading in headings]
    assert released == sorted(released, reverse=True)
    for file in sorted(ROOT.glob("bundles/*/models/*provenance.json")):
        provenance = json.loads(file.read_text())
        assert Version(provenance["pretext3d_version"]) in released, file
        metadata = json.loads((file.parents[1] / "configs" / "metadata.json").read_text())
        assert provenance["bundle_version"] in metadata["changelog"], file


def test_forms_for_issues_ask_for_the_environment() -> None:
    """Each is of GitHub's schema as far as it goes: elements with an id, a label, and what is required."""
    forms = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github").rglob("*.yml")}
    assert forms.pop("config.yml") == {"blank_issues_enabled": True}
    for name, form in forms.items():
        assert {"name", "description", "body"} <= form.keys(), name
        asked = [one for one in form["body"] if one["type"] != "markdown"]
        assert all(one["attributes"]["label"] and one["id"] for one in asked), name
    (env,) = [one for one in forms["bug_report.yml"]["body"] if one.get("id") == "env"]
    assert "pretext3d env" in env["attributes"]["label"]
    assert env["validations"]["required"]


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_large_pages_are_asked_for_unless_the_user_decides(given: str | None, expected: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    code = "import os, pretext3d; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables | ({"THP_MEM_ALLOC_ENABLE": given} if given else {}),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [expected]


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="no large pages here")
def test_torch_asks_for_large_pages_where_it_was_imported_before(tmp_path: Path) -> None:
    """As under `monai.bundle run`: it reads the variable at its first tensor."""
    script = tmp_path / "pages.py"
    script.write_text(
        "import torch, pretext3d\n"
        "tensor = torch.ones(2**24)\n"
        "print('hg' in open('/proc/self/smaps').read().split())  # of a region that may have large pages\n"
    )
    asked = {**environment(), "THP_MEM_ALLOC_ENABLE": "0"}, environment()
    asked[1].pop("THP_MEM_ALLOC_ENABLE", None)
    done = [SERVER.run(str(script), [], tmp_path, variables, timeout=120) for variables in asked]
    assert [one.stdout.split() for one in done] == [["False"], ["True"]], done
