"""The ledger of the paper's claims: which of them our Tables 2 and 4 bear out.

It reads the outcomes that `table2.py` and `table4.py` wrote, of every data set that is
there; `advens.claims` says how a verdict is reached.
"""

from pathlib import Path

from absl import flags

from reproduce import common
from reproduce.results_flags import RESULTS_DIR

flags.declare_key_flag("results_dir")  # for --help


def claims() -> None:
    """Read, judge, write and print."""
    from advens import ledger
    from advens.claims import judge_readings

    results_dir = Path(RESULTS_DIR.value)
    cells, notes = ledger.load(results_dir)
    frame = judge_readings(cells)
    paths = ledger.write(frame, notes, out_dir=results_dir)
    console = common.console()
    console.print(ledger.render(frame))
    for note in notes:
        console.print(note, highlight=False)
    for path in paths:
        console.print(f"wrote {path}", highlight=False)


if __name__ == "__main__":
    common.main(claims)
