"""Figure 1: a test image of each class before and under BIM, and what a network sees.

`python reproduce/figure1.py` needs no data. `--dataset=mnist` draws the rows of that
data set, `--datasets=mnist,cifar10` all rows of the paper's figure. The network is the
first member of Rand. Ini. in Table 2, from the store if it is there.
"""

from absl import flags

import figure_flags
import records
import run_flags
import runs
import script
from advens import program
from result_flags import DATASETS, FIGURES_DIR

flags.adopt_module_key_flags(run_flags)  # for --help
flags.adopt_module_key_flags(figure_flags)
flags.declare_key_flag(DATASETS.name)
flags.declare_key_flag(FIGURES_DIR.name)


def figure1() -> None:
    """Train or load the network, attack it, draw and write."""
    program.import_keras()
    from advens.strauss2017.examples import figure1_examples
    from advens.strauss2017.reporting import captions, figures

    names = dict.fromkeys(DATASETS.value or [run_flags.FLAGS.dataset])
    out_dir = runs.directory("figures_dir", *names)
    figure_flags.check(out_dir)
    # All runs first: whatever is wrong with the flags is found before any training.
    each_run = [runs.make_run(dataset=name, out_dir=out_dir) for name in names]
    examples = [figure1_examples(run) for run in each_run]
    paths = figure_flags.save(
        figures.figure1(examples, figure_flags.style()),
        captions.figure1_caption(examples, [records.record(run) for run in each_run]),
        out_dir=out_dir,
        name="figure1",
    )
    for of_dataset in examples:
        for shortfall in of_dataset.shortfalls:
            print(f"{of_dataset.dataset.name}: {shortfall}")
    script.print_written(paths)


if __name__ == "__main__":
    script.main(figure1)
