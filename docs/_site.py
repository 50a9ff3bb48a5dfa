"""For mkdocs: studies' pages are part of the site; links to files of the repository lead to them, or become text."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add every study's page, with its plots, as `reports/<study>/`."""
    for page in sorted((ROOT / "reports").glob("*/index.html")):
        for path in [page, *sorted((page.parent / "plots").glob("*.png"))]:
            files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Send a link to a study's README to its page; a link to code or to a file above becomes its name."""
    markdown = re.sub(r"\]\(\.\./reports/([^/)]+)/README\.md\)", r"](reports/\1/index.html)", markdown)
    return re.sub(r"\[([^]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
