"""The ledger of the paper's claims: which of them our Tables 2 and 4 support.

It reads the outcomes that `table2.py` and `table4.py` wrote, for all data sets that are
there. Tables of other readings lie in directories of their names below; their verdicts
stand beside. `advens.strauss2017.claims` says how a verdict is reached.
"""

from pathlib import Path

from absl import flags

import script
from result_flags import RESULTS_DIR

flags.declare_key_flag("results_dir")  # for --help


def claims() -> None:
    """Read, judge, write and print."""
    from advens.strauss2017.claims import judge_alternatives
    from advens.strauss2017.readings import READINGS
    from advens.strauss2017.reporting import ledger

    results_dir = Path(RESULTS_DIR.value)
    cells, notes = ledger.read_cells(results_dir)
    frame = judge_alternatives(cells)
    for name in READINGS:
        if (results_dir / name).is_dir():
            others, of_others = ledger.read_cells(results_dir / name)
            frame = ledger.with_other_reading(frame, judge_alternatives(others), name)
            notes += of_others
    paths = ledger.write_ledger(frame, notes, out_dir=results_dir)
    console = script.console()
    console.print(ledger.terminal_ledger(frame))
    for note in notes:
        console.print(note, highlight=False)
    script.print_written(paths)


if __name__ == "__main__":
    script.main(claims)
