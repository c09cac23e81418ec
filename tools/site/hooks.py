"""Hooks of MkDocs: files outside docs/ become pages, further pages are made, and the built pages are checked.

mkdocs.yml names this file. MkDocs calls the functions `on_...` in the order in which they are here. Where
the environment variable PRETEXT3D_SITE_PICTURES is 0 the gallery has no pictures, which is faster.
"""

import logging
import os
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # MkDocs imports this file by its path

from tools.site import checks, dialect, gallery, generated, links, pages, tutorials

log = logging.getLogger("mkdocs.plugins.tools.site")  # below mkdocs, a warning fails a strict build


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation, and rebuild when files outside docs/ change."""
    pages.addresses.cache_clear()
    config.nav = pages.completed_nav(config.nav or [], generated.after())
    config.watch += [str(pages.ROOT / name) for name in pages.outside()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that are outside docs/, and those that are made now."""
    for path, address in pages.outside().items():
        source = pages.ROOT / path
        if source.suffix == ".py":
            files.append(File.generated(config, address, content=tutorials.tutorial_page(source)))
        else:
            files.append(File.generated(config, address, abs_src_path=str(source)))
    pictures = os.environ.get("PRETEXT3D_SITE_PICTURES") != "0"
    for address, text in generated.generated(pictures).items():
        files.append(File.generated(config, address, content=text))
    files.append(File.generated(config, "site.css", abs_src_path=str(Path(__file__).with_name("site.css"))))
    if pictures:
        for picture in sorted(gallery.drawn(pages.bundles(), generated.PACKAGE).glob("*.png")):
            files.append(File.generated(config, f"gallery/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a document of the repository, and its lists and tables."""
    known = pages.addresses()
    source = pages.source_of(page.file.src_uri)
    if source is None:  # made now
        return markdown
    return dialect.python_markdown(links.rewritten(markdown, source, known, pages.ROOT))


def on_post_build(config: MkDocsConfig) -> None:
    """Report what the built pages fetch from elsewhere, and pictures that are missing."""
    for fault in checks.faults(Path(config.site_dir)):
        log.warning(fault)
