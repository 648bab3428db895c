"""What lies beside docs/ and is part of the site, too: figures and notebooks."""

import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parents[1]
_SHOWN = ("figures/*.png", "notebooks/*.ipynb")


@event_priority(100)  # before what makes pages of notebooks
def on_files(files: Files, config: Any) -> Files:
    """Add the figures and notebooks."""
    for pattern in _SHOWN:
        for path in sorted(_ROOT.glob(pattern)):
            name = path.relative_to(_ROOT).as_posix()
            files.append(
                File(name, str(_ROOT), config.site_dir, config.use_directory_urls)
            )
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links that lead out of docs/ into links of the site."""
    for directory in ("figures", "notebooks"):
        markdown = markdown.replace(f"](../{directory}/", f"]({directory}/")
    return markdown


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Do the same on the pages of notebooks, which lead to docs/."""
    if page.file.src_uri.startswith("notebooks/"):
        html = re.sub(r'href="\.\./docs/(\w+)\.md', r'href="../\1.html', html)
    return html
