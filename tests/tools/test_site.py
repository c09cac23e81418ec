"""The documentation site: its pages, how their links and lists are rewritten, what is checked."""

from pathlib import Path

import pytest
import yaml

from tools.site.checks import faults, fetched
from tools.site.dialect import python_markdown
from tools.site.links import rewritten
from tools.site.pages import addresses, outside, with_studies

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
    nav = nav_addresses(with_studies(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {address for address in addresses().values() if address.endswith(".md")}
    assert len(nav) == len(set(nav))
    assert pages == set(nav)


def test_reports_of_studies_follow_their_page(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "docs/studies" / name).mkdir(parents=True)
        (tmp_path / "docs/studies" / name / "RESULTS.md").write_text("")
    nav = ["x.md", {"Compare": ["compare.md", {"Studies": "studies/README.md"}, {"After": "y.md"}]}]
    assert with_studies(nav, tmp_path) == [
        "x.md",
        {
            "Compare": [
                "compare.md",
                {"Studies": "studies/README.md"},
                {"Study: a": "studies/a/RESULTS.md"},
                {"Study: b": "studies/b/RESULTS.md"},
                {"After": "y.md"},
            ]
        },
    ]
    assert nav[1] == {"Compare": ["compare.md", {"Studies": "studies/README.md"}, {"After": "y.md"}]}


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
        ("a\n\n<!-- command: x -->\n```sh\ny\n```\n", "a\n\n```sh\ny\n```\n"),
    ],
)  # fmt: skip
def test_lists_tables_and_fences_as_python_markdown_reads_them(text: str, expected: str) -> None:
    assert python_markdown(text) == expected


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


def test_a_page_fetches_nothing_by_its_theme() -> None:
    """Material loads its fonts from elsewhere unless it is told not to."""
    assert "\n  font: false" in (ROOT / "mkdocs.yml").read_text()
