"""The results in README.md and docs/results.md, from the files in results/.

It replaces what stands between the markers of these pages and writes `differences.csv`,
which holds the differences that they show. `--check` writes nothing and fails if one of
these files does not fit results/ any more.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from absl import flags

import script
from run_flags import FLAGS

README: Final = Path("README.md")
PAGE: Final = Path("docs/results.md")

flags.declare_key_flag("out_dir")  # for --help
_CHECK: Final = flags.DEFINE_boolean(
    "check", False, "Write nothing; fail if a page does not fit the results."
)


def readme() -> None:
    """Read the results, then write the pages or compare them."""
    for page in (README, PAGE):
        if not page.exists():
            raise FileNotFoundError(
                f"{page} is missing. Start the script in the directory that holds "
                f"README.md. Received: {Path.cwd()}"
            )

    from advens.storage.files import atomic

    texts = _texts(Path(FLAGS.out_dir))
    if not _CHECK.value:
        for path, text in texts.items():
            with atomic(path) as handle:
                handle.write(text.encode())
        script.print_written(texts)
        return
    stale = [
        str(path)
        for path, text in texts.items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    if stale:
        raise ValueError(
            f"Out of date: {', '.join(stale)}. Update by: python reproduce/readme.py "
            f"--out_dir={FLAGS.out_dir}"
        )


def _texts(results_dir: Path) -> dict[Path, str]:
    """Return what each file has to contain."""
    from advens.strauss2017.reporting import pages, results

    stored = results.read_results(results_dir)
    figures = Path("figures")
    drawn = [figures / f"figure{i}.png" for i in (1, 2)]
    for name in ("atlas", "anomaly"):
        drawn += sorted(figures.glob(f"{name}_*.png"))
    # MNIST's rather than that of the digits.
    overview = sorted(figures.glob("overview_*.png"))[-1:]
    first = overview or [figures / "figure1.png"]
    parts = {
        README: {
            "picture": _pictures(first, README),
            "results": pages.readme_results(stored),
        },
        PAGE: {"results": pages.details(stored), "pictures": _pictures(drawn, PAGE)},
    }
    texts = {
        page: pages.fill_page(page.read_text("utf-8"), of_page)
        for page, of_page in parts.items()
    }
    differences = results.differences(stored).to_csv(index=False)
    return texts | {results_dir / "differences.csv": differences}


def _pictures(files: Iterable[Path], page: Path) -> str:
    """Return the Markdown that shows, on a page, those of the files that exist."""
    existing = [file for file in files if file.exists()]
    return "\n\n".join(
        f"![{file.stem}]({os.path.relpath(file, page.parent)})" for file in existing
    )


if __name__ == "__main__":
    script.main(readme)
