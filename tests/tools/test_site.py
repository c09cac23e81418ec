"""The documentation site: its pages, how their links and lists are rewritten, what is checked."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.image import imread
from pretext3d.commands.preview import options, preview
from pretext3d.training.pictures import render

from tools.site.api import api_pages
from tools.site.checks import faults, fetched
from tools.site.commands import option_rows
from tools.site.dialect import python_markdown
from tools.site.gallery import fingerprint, gallery_page, words_of
from tools.site.generated import after
from tools.site.keys import bundle_page, common_page, read_keys, summary, typed
from tools.site.links import rewritten
from tools.site.messages import read_messages
from tools.site.pages import addresses, bundles, completed_nav, outside, source_of
from tools.site.tables import cell, code
from tools.site.tutorials import index_page, tutorial_page

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {
    "README.md": "index.md",
    "docs/compare.md": "compare.md",
    "docs/studies/README.md": "studies/README.md",
    "bundles/cpc": "methods/cpc.md",
    "bundles/cpc/docs/README.md": "methods/cpc.md",
    "bundles/cpc/docs/curves.png": "methods/cpc/curves.png",
}


def nav_addresses(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    return [address for entry in entries for address in nav_addresses(entry)]


# --------------------------------------------------------------------------------------------------- pages
def test_every_document_is_in_the_navigation_once() -> None:
    nav = nav_addresses(completed_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"], after()))
    assert len(nav) == len(set(nav))
    documents = {address for address in nav if source_of(address)}
    assert documents == {a for a in addresses().values() if a.endswith(".md") and source_of(a)}
    made = {"reference/keys.md", "reference/commands.md", "reference/errors.md", "gallery.md"}
    made |= {"tutorials/index.md"}
    made |= {f"reference/keys/{bundle.name}.md" for bundle in bundles()}
    assert set(nav) - documents == made | set(api_pages(ROOT / "shared" / "pretext3d"))


def test_entries_follow_their_page_in_the_navigation() -> None:
    nav = ["x.md", {"Compare": ["compare.md", {"Studies": "studies/README.md"}, {"After": "y.md"}]}]
    study = {"Study: a": "studies/a/RESULTS.md"}
    assert completed_nav(nav, {"studies/README.md": [study], "x.md": ["z.md"]}) == [
        "x.md",
        "z.md",
        {"Compare": ["compare.md", {"Studies": "studies/README.md"}, study, {"After": "y.md"}]},
    ]
    assert len(nav) == 2


def test_reports_of_studies_and_tutorials_are_found(tmp_path: Path) -> None:
    for name in (
        "docs/studies/b/RESULTS.md",
        "docs/studies/a/RESULTS.md",
        "tutorials/t.py",
        "tutorials/_x.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = after(tmp_path)
    assert found["studies/README.md"] == [
        {"Study: a": "studies/a/RESULTS.md"},
        {"Study: b": "studies/b/RESULTS.md"},
    ]
    assert found["index.md"] == [{"Tutorials": ["tutorials/index.md", "tutorials/t.md"]}]
    assert after(tmp_path / "docs")["index.md"] == []


def test_files_outside_docs_have_an_address_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "bundles/one/docs").mkdir(parents=True)
    for name in ("README.md", "a.png", "notes.txt"):
        (tmp_path / "bundles/one/docs" / name).write_text("")
    (tmp_path / "README.md").write_text("")
    assert outside(tmp_path) == {
        "README.md": "index.md",
        "bundles/one/docs/README.md": "methods/one.md",
        "bundles/one/docs/a.png": "methods/one/a.png",
    }
    assert len(set(outside().values())) == len(outside())


# --------------------------------------------------------------------------------------------------- links
@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("README.md", "[c](docs/compare.md)", "[c](compare.md)"),
        ("README.md", "[c](docs/compare.md#studies)", "[c](compare.md#studies)"),
        ("README.md", "![a](bundles/cpc/docs/curves.png)", "![a](methods/cpc/curves.png)"),
        ("docs/compare.md", "[cpc](../bundles/cpc)", "[cpc](methods/cpc.md)"),
        ("docs/studies/README.md", "[c](../compare.md)", "[c](../compare.md)"),
        ("bundles/cpc/docs/README.md", "![c](curves.png)", "![c](cpc/curves.png)"),
        ("bundles/cpc/docs/README.md", "[r](../../../README.md)", "[r](../index.md)"),
        ("README.md", "[m](https://monai.io) [h](#keys)", "[m](https://monai.io) [h](#keys)"),
        ("README.md", "[`c`](docs/compare.md)", "[`c`](compare.md)"),
    ],
)
def test_links_lead_to_pages(source: str, text: str, expected: str) -> None:
    assert rewritten(text, source, KNOWN, ROOT) == expected


def test_files_without_a_page_are_named() -> None:
    assert rewritten("a [test](../tests/conftest.py).", "docs/compare.md", KNOWN, ROOT) == (
        "a test (`tests/conftest.py`)."
    )
    assert rewritten("[`conftest.py`](tests/conftest.py)", "README.md", KNOWN, ROOT) == "`tests/conftest.py`"


def test_links_that_lead_nowhere_stay() -> None:
    """MkDocs reports them."""
    for text in ("[x](nothing.md)", "![x](nothing.png)"):
        assert rewritten(text, "README.md", KNOWN, ROOT) == text


def test_code_has_no_links() -> None:
    text = "`x[0](docs/compare.md)`\n```python\nx[0](docs/compare.md)\n```\n[c](docs/compare.md)\n"
    assert rewritten(text, "README.md", KNOWN, ROOT) == text.replace(
        "[c](docs/compare.md)", "[c](compare.md)"
    )


# ------------------------------------------------------------------------------------------------- dialect
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n- b\n- c\nd", "a\n\n- b\n- c\n    d"),  # d belongs to c
        ("- b\n  more\n\nd", "- b\n    more\n\nd"),
        ("- a\n  - b\n    more\n  - c\n- d", "- a\n    - b\n        more\n    - c\n- d"),
        ("10. a\n\n    more", "10. a\n\n    more"),
        ("1. a\n   ```sh\n   x\n     y\n   ```\n2. b", "1. a\n\n    ```sh\n    x\n      y\n    ```\n\n2. b"),
        ("a\n| x |\n|---|\n| 1 |\n\nb", "a\n\n| x |\n|---|\n| 1 |\n\nb"),
        ("a\n```sh\nx\n```\nb", "a\n\n```sh\nx\n```\n\nb"),
        ("a\n\n    - code\n\nb", "a\n\n    - code\n\nb"),
        ("```\n- a\n  - b\n```", "```\n- a\n  - b\n```"),
        ("<details><summary>b</summary>\n", '<details markdown="1"><summary>b</summary>\n'),
        ("a\n\n<!-- command: x -->\n```sh\ny\n```\n", "a\n\n```sh\ny\n```\n"),
    ],
)  # fmt: skip
def test_lists_tables_and_fences_as_python_markdown_reads_them(text: str, expected: str) -> None:
    assert python_markdown(text) == expected


# -------------------------------------------------------------------------------------------- made by a build
CONFIG = """# What the file is for.
# >>> data (common; written by tools/bundles/sync)
# How it is called.
seed: 0
# ---- data
fraction: 0.2  # of the subjects
# axes in RAS order
axes: $@settings['axes']
more: $@settings.get('more', 1)
same: '@axes'
text: 'a # b'
optimizer:  # of the training
  _target_: torch.optim.Adam
  lr: '@fraction'
  decay: 0.1
  warm: $@settings['warm']
net: {_target_: pretext3d.ops, size: [1, 2]}
steps:
- _target_: x
# <<<
after: null
profiles:
  paper: {axes: 3}
"""


def test_keys_of_a_configuration() -> None:
    found = {key.name: key for key in read_keys(CONFIG)}
    shown = {name: (key.kind, key.default, key.comment, key.profile) for name, key in found.items()}
    assert shown == {
        "seed": ("integer", "`0`", "", ""),
        "fraction": ("number", "`0.2`", "of the subjects", ""),
        "axes": ("", "from the profile", "axes in RAS order", "axes"),
        "more": ("", "from the profile", "", "more"),
        "same": ("computed", "that of `axes`", "", ""),
        "text": ("text", "`'a # b'`", "", ""),
        "optimizer": ("component", "<code>torch.<wbr>optim.<wbr>Adam</code>", "of the training", ""),
        "optimizer::decay": ("number", "`0.1`", "", ""),
        "optimizer::warm": ("", "from the profile", "", "warm"),
        "net": (
            "component",
            "[<code>pretext3d.<wbr>ops</code>][pretext3d.ops]",
            summary("pretext3d.ops"),
            "",
        ),
        "net::size": ("list", "`[1, 2]`", "", ""),
        "steps": ("list of components", "", "", ""),
        "after": ("null", "`null`", "", ""),
        "profiles": ("mapping", "see the bundle's page", "", ""),
    }
    assert {name for name, key in found.items() if key.heading != "data"} == {"seed", "after", "profiles"}
    assert found["seed"].heading == found["after"].heading == ""


def test_every_key_of_every_bundle_is_on_a_page() -> None:
    folders = tuple(bundles())
    common = common_page(folders)
    for bundle in folders:
        page = bundle_page(bundle, bundle.name, folders)
        for path in sorted((bundle / "configs").glob("*.yaml")):
            for key in yaml.safe_load(path.read_text()):
                row = f"| {typed(key)} |"
                assert row in common or row in page, f"{path}: {key}"
    assert "| `dataset_dir` | *text*<br>`''` in train, " in common
    assert typed("a::b") == "<code>a::<wbr>b</code>"
    for line in ("| `spatial_dims` |", "| `dataset_dir` |"):  # its comment differs in one bundle alone
        pages = {
            bundle.name: bundle_page(bundle, "", folders).split("## finetune.yaml")[0] for bundle in folders
        }
        assert [name for name, page in pages.items() if line in page] == ["avsdb"]
    assert "sections 2.3 and 3: 3D ResNet-50" in bundle_page(ROOT / "bundles/vectorpose", "V", folders)


def test_messages_of_a_module() -> None:
    source = '''
class Reader:
    """Reads.

    Raises:
        UserError: no such file.
        OSError: another.
    """

    def __init__(self, path):
        if path:
            raise UserError(f"{path}: not found" + f", expected {path.name!r}")

    def read(self):
        """Reads.

        Raises:
            UserError: damaged.
        """
        message = f"a {self}"
        raise UserError(message)


def other(error):
    raise UserError(error) from ValueError("x")
'''
    found = [(m.text, m.place, m.line, m.cause) for m in read_messages(source)]
    assert found == [
        ("{path}: not found, expected {path.name}", "Reader.__init__", 12, "no such file."),
        ("a {self}", "Reader.read", 21, "damaged."),
        ("{error}", "other", 25, ""),
    ]


def test_every_message_has_a_cause() -> None:
    package = ROOT / "shared" / "pretext3d"
    found = [m for path in package.rglob("*.py") for m in read_messages(path.read_text()) if not m.cause]
    assert found == []


def test_options_of_a_command() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", help="folders | files")
    parser.add_argument("--engine", choices=("local", "slurm"), default="local")
    parser.add_argument("--bundle", required=True, help="name; default: none")
    parser.add_argument("--resume", action="store_true", help="go on")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1], help="default: %(default)s")
    parser.add_argument("--data", default="", help="folder; default: the phantom")
    parser.add_argument("--old", help=argparse.SUPPRESS)
    assert option_rows(parser) == [
        ["`runs [runs ...]`", "required", "folders &#124; files"],
        ["`--engine {local,slurm}`", "`local`", ""],
        ["`--bundle BUNDLE`", "required", "name; default: none"],
        ["`--resume`", "", "go on"],
        ["`--seeds [SEEDS ...]`", "`0 1`", ""],
        ["`--data DATA`", "", "folder; default: the phantom"],
    ]


def test_cells_show_their_text_as_it_is() -> None:
    assert cell("1 < 2 * x_0 [mm]\n`a|b`") == "1 &lt; 2 &#42; x&#95;0 &#91;mm] <code>a&#124;b</code>"
    assert cell("a ` b") == "a &#96; b"
    assert code("") == ""
    assert code("a `b`") == "`` a `b` ``"


def test_a_tutorial_as_markdown(tmp_path: Path) -> None:
    script = tmp_path / "t.py"
    script.write_text("# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 1\nprint(x)\n\n# %%\n")
    assert tutorial_page(script) == "# Title\n\nText.\n\n```python\nx = 1\nprint(x)\n```\n"
    assert "- [Title](t.md): `python tutorials/t.py`\n" in index_page([script])


def test_pictures_are_of_the_present_sources(tmp_path: Path) -> None:
    bundle, package = tmp_path / "b", tmp_path / "p"
    (bundle / "configs").mkdir(parents=True)
    package.mkdir()
    (bundle / "configs/train.yaml").write_text("a: 1")
    (package / "x.py").write_text("")
    first = fingerprint([bundle], package)
    assert fingerprint([bundle], package) == first
    (package / "x.py").write_text("1")
    second = fingerprint([bundle], package)
    (bundle / "configs/train.yaml").write_text("a: 2")
    assert len({first, second, fingerprint([bundle], package)}) == 3


@pytest.mark.parametrize("bundle", bundles(), ids=lambda path: path.name)
@pytest.mark.parametrize("dims", [3, 2])
def test_a_picture_has_the_prediction_of_weights_with_as_many_axes(
    bundle: Path, dims: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They load into the network of the picture, all of their tensors."""
    monkeypatch.setenv("PRETEXT3D_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    known, overrides = options.parse_arguments(words_of(bundle, dims, tmp_path / "x.png"))
    weights = options.check_arguments(known, overrides)
    assert weights is not None
    checkpoint = preview.Checkpoint(weights)
    record = checkpoint.content["record"]
    assert record["method"] == bundle.name
    assert record["backbone"]["spatial_dims"] == dims
    workflow = preview.Preview(bundle, overrides, recorded=checkpoint.settings())
    found = {"channels": record["channels"], "pixdim": record["pixdim"], "num_classes": 0}
    workflow.parser["cases"] = found  # no scan is read
    network = checkpoint.network(workflow)
    assert set(network.state_dict()) == set(checkpoint.content["network"])


def test_a_picture_in_2d_has_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETEXT3D_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    figures: list[Any] = []
    monkeypatch.setattr(preview, "render", lambda figure: figures.append(figure) or render(figure))
    picture = tmp_path / "x.png"
    assert options.main(words_of(ROOT / "bundles/avsdb", 2, picture)) == 0  # of generated shapes: no phantom
    assert "Prediction" in [text.get_text() for text in figures[0].texts]
    assert imread(picture).shape[1] > imread(picture).shape[0]


def test_the_gallery_can_do_without_pictures() -> None:
    assert gallery_page({"cpc": "CPC"}, True).count("](gallery/cpc_") == 2
    assert "](gallery/" not in gallery_page({"cpc": "CPC"}, False)


# -------------------------------------------------------------------------------------------------- checks
@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<script src="a.js"></script>', ["a.js"]),
        ('<link rel="stylesheet" href="a.css"><link rel="canonical" href="https://x.org/">', ["a.css"]),
        ('<link rel="preconnect" href="https://fonts.x.org">', ["https://fonts.x.org"]),
        ('<img src="a.png" srcset="b.png 1x, c.png 2x">', ["a.png", "b.png", "c.png"]),
        ("<p style=\"background: url('a.png')\">url(text)</p>", ["a.png"]),
        ("<style>@font-face{src:url(https://x.org/f.woff)}</style>", ["https://x.org/f.woff"]),
        ('<iframe src="https://x.org"></iframe>', ["https://x.org"]),
        ('<a href="https://x.org">x</a>', []),
    ],
)
def test_what_a_browser_fetches(html: str, expected: list[str]) -> None:
    assert fetched(html) == expected


def test_faults_of_a_built_site(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "index.html").write_text('<img src="a.png"><img src="b.png"><script src="//x.org/y.js">')
    (tmp_path / "methods/cpc.html").write_text('<img src="../a.png?1#x"><img src="data:image/png;base64,AA">')
    (tmp_path / "main.css").write_text("@import 'https://x.org/z.css'; p { background: url(a.png) }")
    assert list(faults(tmp_path)) == [
        "index.html: b.png is not in the site",
        "index.html: fetches //x.org/y.js, expected a file of the site",
        "main.css: fetches https://x.org/z.css, expected a file of the site",
    ]


def test_ci_builds_the_site_strictly() -> None:
    """With --quiet MkDocs counts no warnings, so that a strict build passes with any."""
    (command,) = re.findall(r"mkdocs build .*", (ROOT / ".ci" / "run").read_text())
    assert "--strict" in command
    assert "-q" not in command


def test_a_page_fetches_nothing_by_its_theme() -> None:
    """Material loads its fonts from elsewhere unless it is told not to."""
    assert "\n  font: false" in (ROOT / "mkdocs.yml").read_text()
