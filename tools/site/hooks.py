"""Hooks of MkDocs: files outside docs/ become pages, links lead to pages, and the built pages are checked.

mkdocs.yml names this file. MkDocs calls the functions `on_...` in the order in which they are here.
"""

import logging
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # MkDocs imports this file by its path

from tools.site import checks, dialect, links, pages

log = logging.getLogger("mkdocs.plugins.tools.site")  # below mkdocs, a warning fails a strict build


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation, and rebuild when files outside docs/ change."""
    config.nav = pages.with_studies(config.nav or [])
    config.watch += [str(pages.ROOT / name) for name in pages.outside()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that are outside docs/."""
    for path, address in pages.outside().items():
        files.append(File.generated(config, address, abs_src_path=str(pages.ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a document of the repository, and its lists and tables."""
    known = pages.addresses()
    sources = {address: path for path, address in known.items() if (pages.ROOT / path).is_file()}
    source = sources.get(page.file.src_uri)
    if source is None:  # generated
        return markdown
    return dialect.python_markdown(links.rewritten(markdown, source, known, pages.ROOT))


def on_post_build(config: MkDocsConfig) -> None:
    """Report what the built pages fetch from elsewhere, and pictures that are missing."""
    for fault in checks.faults(Path(config.site_dir)):
        log.warning(fault)
