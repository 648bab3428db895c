"""The results as the README and docs/results.md show them, from the files in results/.

It replaces what stands between the markers of these pages, and writes
`differences.csv`, which holds the differences that they name. `--check` writes nothing
and fails if one of them does not fit results/ any more.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from absl import flags

from reproduce import common
from reproduce.shared_flags import FLAGS

README: Final = Path("README.md")
PAGE: Final = Path("docs/results.md")

flags.declare_key_flag("out_dir")  # for --help
_CHECK: Final = flags.DEFINE_boolean(
    "check", False, "Write nothing; fail if a page is not what results/ makes it."
)


def readme() -> None:
    """Read the results, then write the pages or compare them."""
    for page in (README, PAGE):
        if not page.exists():
            raise FileNotFoundError(
                f"{page} is missing. Start the script in the directory that holds "
                f"README.md. Received: {Path.cwd()}"
            )

    from advens import pages, report
    from advens.files import atomic

    out_dir = Path(FLAGS.out_dir)
    results = report.load(out_dir)
    drawn = [Path("figures") / f"figure{number}.png" for number in (1, 2)]
    drawn += sorted(Path("figures").glob("anomaly_*.png"))
    parts = {
        README: {
            "picture": _pictures(drawn[:1], README),
            "results": pages.summary(results),
        },
        PAGE: {
            "results": pages.details(results),
            "pictures": _pictures(drawn[1:], PAGE),
        },
    }
    wanted = {
        page: pages.fill(page.read_text("utf-8"), filled)
        for page, filled in parts.items()
    }
    differences = report.differences(results).to_csv(index=False)
    wanted[out_dir / "differences.csv"] = differences
    if _CHECK.value:
        stale = [
            str(path)
            for path, text in wanted.items()
            if not path.exists() or path.read_text("utf-8") != text
        ]
        if stale:
            raise ValueError(
                f"{', '.join(stale)} does not fit what {out_dir} holds. Mend it by: "
                f"python reproduce/readme.py --out_dir={out_dir}"
            )
        return
    for path, text in wanted.items():
        with atomic(path) as handle:
            handle.write(text.encode())
        print(f"wrote {path}")


def _pictures(files: Iterable[Path], page: Path) -> str:
    """Return the Markdown that shows, on a page, those of the files that exist."""
    links = {f.stem: os.path.relpath(f, page.parent) for f in files if f.exists()}
    return "\n\n".join(f"![{name}]({link})" for name, link in links.items())


if __name__ == "__main__":
    common.main(readme)
