"""Tables 2 and 4 as LaTeX, with captions, without a new run.

It reads what `table2.py` and `table4.py` wrote, for all data sets that are there, and
writes what they write with `--latex`: the same files, beside the same tables.
"""

from pathlib import Path

from absl import flags

import script
from result_flags import RESULTS_DIR

flags.declare_key_flag(RESULTS_DIR.name)  # for --help


def write_tables() -> None:
    """Read the tables and write them as LaTeX."""
    from advens.strauss2017.reporting import latex_tables, results

    results_dir = Path(RESULTS_DIR.value)
    tables = results.read_results(results_dir).tables
    if not tables:
        raise FileNotFoundError(
            f"There is no table in {results_dir}. Make one by: "
            f"{results.command('table2', 'digits')} --out_dir={results_dir}"
        )
    for table, dataset in tables:
        script.print_written(latex_tables.write_latex(results_dir, table, dataset))


if __name__ == "__main__":
    script.main(write_tables)
