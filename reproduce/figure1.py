"""Figure 1: a test image of each class, before and under BIM, and what is seen in it.

`python reproduce/figure1.py` needs no data; `--dataset=mnist` draws the rows of that
data set, `--datasets=mnist,cifar10` all rows of the paper's. The network is the first
member of Table 2's random initialisation, from the store if it is there.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from reproduce import common, runs, shared_flags
from reproduce.results_flags import DATASETS, FIGURES_DIR
from reproduce.shared_flags import FLAGS

if TYPE_CHECKING:
    from advens.examples import Examples
    from advens.experiments import Run

flags.adopt_module_key_flags(shared_flags)  # for --help
flags.declare_key_flag("datasets")
flags.declare_key_flag("figures_dir")


def figure1() -> None:
    """Train or load the network, attack, draw and write."""
    from advens import figures

    common.check_writable("figures_dir")
    out_dir = Path(FIGURES_DIR.value)
    made = []
    for name in dict.fromkeys(DATASETS.value or [FLAGS.dataset]):
        # What `make_run` reads: the data, and the directory that must be writable.
        FLAGS["dataset"].value, FLAGS["out_dir"].value = name, FIGURES_DIR.value
        made.append(runs.make_run())
    examples = [_examples(run) for run in made]
    paths = figures.save(figures.figure1(examples), out_dir=out_dir, name="figure1")
    for example in examples:
        for shortfall in example.shortfalls:
            print(f"{example.dataset.name}: {shortfall}")
    for path in paths:
        print(f"wrote {path}")


def _examples(run: "Run") -> "Examples":
    from keras import ops

    from advens import experiments, training
    from advens.attacks import craft
    from advens.evaluation import Threat
    from advens.examples import Examples, choose

    members = run.members("rand_ini", 1)
    run.train("rand_ini", members)
    threat = Threat("member", 0, loss=experiments.PAPER_LOSS)
    clean, attacked = run.outcomes("rand_ini", members, [None, threat])
    (bim,) = (attack for attack in run.attacks if attack.name == "BIM")
    right, right_attacked = clean["none"].ensemble, attacked["BIM"].ensemble
    indices = choose(run.dataset.y_test, right, right_attacked)
    network = training.load_ensemble(members, run.store)
    x, y = run.dataset.x_test[indices], run.dataset.y_test[indices]
    [(x_adv, _)] = craft(threat.of(network), x, y, [bim])
    return Examples(
        dataset=run.dataset,
        indices=indices,
        before=network.predict_on_batch(x).argmax(axis=-1),
        x_adv=ops.convert_to_numpy(x_adv),
        after=network.predict_on_batch(x_adv).argmax(axis=-1),
        attack=bim,
        deviations=run.deviations(),
    )


if __name__ == "__main__":
    common.main(figure1)
