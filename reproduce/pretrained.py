"""The trained ensembles that come with advens: Rand. Ini., three members.

`python reproduce/pretrained.py --dataset=mnist` takes the members that `table2.py`
trained, or trains them, rounds their weights to float16, judges what is left and writes
both beside `advens.load_pretrained`, which reads them.
"""

import dataclasses
import hashlib
import json

from absl import flags

import records
import run_flags
import runs
import script
from advens import pretrained, program
from advens.models.architecture import Architecture
from run_flags import FLAGS

flags.adopt_module_key_flags(run_flags)  # for --help
_METHOD = "rand_ini"


def make_pretrained() -> None:
    """Train what is missing, round, judge, write and print."""
    program.import_keras()
    from advens.evaluation.evaluate import evaluate
    from advens.storage.files import write_all
    from advens.training.members import load_member

    count = 3 if FLAGS["num_members"].using_default_value else FLAGS.num_members
    run = runs.make_run(num_members=count, out_dir=pretrained.DIRECTORY)
    members = run.members(_METHOD)
    run.train(_METHOD, members)
    data = pretrained.pack([load_member(member, run.store) for member in members])
    architecture = members[0].recipe.architecture
    if not isinstance(architecture, Architecture):
        raise ValueError(
            "`network` must be left out: only the paper's networks come with the "
            f"package. Received: network={FLAGS.network}"
        )
    x, y = run.dataset.x_test, run.dataset.y_test
    [outcomes] = evaluate(pretrained.unpack(architecture, data), x, y)
    card = {
        "dataset": run.dataset.name,
        "method": _METHOD,
        "architecture": dataclasses.asdict(architecture),
        "sha256": hashlib.sha256(data).hexdigest(),
        "test_images": len(y),
        "accuracy_of_members": outcomes.members.mean(axis=1).round(6).tolist(),
        "accuracy_of_the_ensemble": float(outcomes.ensemble.mean().round(6)),
        "training": records.record(run, overrides={"num_members": count}),
    }
    name = f"{run.dataset.name}_{_METHOD}"
    text = json.dumps(card, indent=2)
    contents = {f"{name}.json": f"{text}\n".encode(), f"{name}.npz": data}
    script.print_written(write_all(pretrained.DIRECTORY, contents))


if __name__ == "__main__":
    script.main(make_pretrained)
