"""The ledger of the paper's claims: which of them our Tables 2 and 4 support.

It reads the outcomes that `table2.py` and `table4.py` wrote, for all data sets that are
there. `advens.strauss2017.claims` says how a verdict is reached.
"""

from pathlib import Path

from absl import flags

import script
from result_flags import RESULTS_DIR

flags.declare_key_flag("results_dir")  # for --help


def claims() -> None:
    """Read, judge, write and print."""
    from advens.strauss2017.claims import judge_readings
    from advens.strauss2017.reporting import ledger

    results_dir = Path(RESULTS_DIR.value)
    cells, notes = ledger.read_cells(results_dir)
    frame = judge_readings(cells)
    paths = ledger.write_ledger(frame, notes, out_dir=results_dir)
    console = script.console()
    console.print(ledger.terminal_ledger(frame))
    for note in notes:
        console.print(note, highlight=False)
    script.print_written(paths)


if __name__ == "__main__":
    script.main(claims)
