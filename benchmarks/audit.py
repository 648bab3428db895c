"""Robust accuracy under strong attacks: the audit of advens beside its peers.

All contenders attack the same ensembles with the same budgets: each attack in its turn
the images that survived those before it, as auto-attack does, or with `--independent`
all images. Adversarial images are judged by the ensemble in Keras. "advens" runs the
peers' attacks, "audit" all those of `advens.audit`. Seconds are processor time, which
other work on the machine changes little. Run it with OMP_NUM_THREADS=1 beside such
work: PyTorch's threads would wait for each other.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from absl import flags

import common
from advens.arrays import Answers, Images, Labels

if TYPE_CHECKING:
    from audit_peers import Case, Crafting

# For each attack the images that are still right, `(n,)`, and its processor time in
# seconds.
Results: TypeAlias = dict[str, tuple[Answers, float]]

_DATASET = flags.DEFINE_enum("dataset", "digits", ["digits", "mnist"], "The images.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Directory with mnist.npz.")
_WORK_DIR = flags.DEFINE_string("work_dir", "work", "Where members are or are put.")
_METHODS = flags.DEFINE_list("methods", ["rand_ini"], "Rows of Table 2.")
_LOGITS = flags.DEFINE_string("logits", None, "See `Architecture`.")
_TRAIN_BATCH_SIZE = flags.DEFINE_integer("train_batch_size", None, "See `Recipe`.")
_EPOCHS = flags.DEFINE_integer("epochs", None, "See `Recipe`; default: the paper's.", 1)
_NUM_MEMBERS = flags.DEFINE_integer("num_members", 10, "Members of the ensemble.", 1)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 1000, "Images to attack.", 1)
_EPS = flags.DEFINE_float("eps", 0.1, "The largest norm of a perturbation.", 0)
_NORM = flags.DEFINE_enum("norm", "linf", ["linf", "l2"], "Which norm.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 100, "Steps of APGD and PGD.", 1)
_NUM_QUERIES = flags.DEFINE_integer("num_queries", 1000, "Queries of Square.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Images per call.", 1)
_CONTENDERS = flags.DEFINE_list("contenders", None, "Some of them; default: all.")
_ATTACKS = flags.DEFINE_list("attacks", None, "Some attacks; default: all.")
_INDEPENDENT = flags.DEFINE_bool("independent", False, "Whether all attack all images.")
_SAVE = flags.DEFINE_string("save", None, "Directory for the outcomes, image by image.")


def main() -> None:
    """Load or train the ensembles, then let all contenders attack and publish."""
    import audit_peers
    from advens import datasets
    from advens.storage.store import Store
    from advens.strauss2017.run import Run
    from advens.strauss2017.settings import Settings, paper_attacks
    from advens.training.members import load_ensemble

    data = datasets.load(_DATASET.value, data_dir=_DATA_DIR.value)
    given = {
        "logits": _LOGITS.value,
        "batch_size": _TRAIN_BATCH_SIZE.value,
        "epochs": _EPOCHS.value,
    }
    settings = Settings.for_dataset(
        data.name, **{name: value for name, value in given.items() if value}
    )
    store = Store(_WORK_DIR.value)
    run = Run(
        data,
        settings,
        paper_attacks(data.name),
        store,
        num_members=_NUM_MEMBERS.value,
    )
    x, y = data.x_test[: _NUM_IMAGES.value], data.y_test[: _NUM_IMAGES.value]
    lines: list[list[str]] = []
    results: dict[str, dict[str, Results]] = {}
    missing: dict[str, str] = {}
    for method in _METHODS.value:
        members = run.members(method)
        run.train(method, members)
        case = audit_peers.Case(
            load_ensemble(members, store),
            [member.recipe.architecture for member in members],
            eps=_EPS.value,
            norm=_NORM.value,
            num_steps=_NUM_STEPS.value,
            num_queries=_NUM_QUERIES.value,
            batch_size=_BATCH_SIZE.value,
        )
        lines.append([f"[bold]{method}, {len(members)} members", "", ""])
        for name in _CONTENDERS.value or ["audit", *audit_peers.CONTENDERS]:
            keep = functools.partial(_keep, f"{data.name}-{method}", name, y)
            try:
                if name == "audit":
                    found = audit_suite(case, x, y)
                else:
                    attacks = audit_peers.CONTENDERS[name](case)
                    found = attack_in_order(case, attacks, x, y, after=keep)
            except ImportError as error:
                missing[name] = str(error)
                continue
            keep(found)
            results.setdefault(method, {})[name] = found
            for attack, (right, seconds) in found.items():
                lines.append(
                    [f"{name}, {attack}", f"{right.mean():.4f}", f"{seconds:.1f}"]
                )
    title = (
        f"{data.name}, {len(x)} images, {_NORM.value}, eps {_EPS.value}, "
        f"{_NUM_STEPS.value} steps, {_NUM_QUERIES.value} queries, batch "
        f"{_BATCH_SIZE.value}"
    )
    notes = [f"not installed: {name} ({why})" for name, why in missing.items()]
    common.publish(
        "\n".join([title, *notes]),
        ["attack", "robust accuracy", "processor seconds"],
        lines,
        robust_accuracy=_of_each(results, lambda right, _: float(right.mean())),
        processor_seconds=_of_each(results, lambda _, seconds: seconds),
        missing=missing,
    )


def attack_in_order(
    case: "Case",
    attacks: "dict[str, Crafting]",
    x: Images,
    y: Labels,
    *,
    after: Callable[[Results], None],
) -> Results:
    """Return which images are still right without attack and after each attack.

    Args:
        case: what is attacked.
        attacks: by their names.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        after: called with the results so far, after each attack.
    """
    right = _right(case, x, y)
    results: Results = {"none": (right, 0.0)}
    for name, attack in attacks.items():
        if _ATTACKS.value and name not in _ATTACKS.value:
            continue
        before = results["none"][0] if _INDEPENDENT.value else right
        right = before.copy()
        start = time.process_time()
        if before.any():
            x_adv = attack(x[before], y[before])
            _check_budget(case, name, x[before], x_adv)
            right[before] = _right(case, x_adv, y[before])
        results[name] = right, time.process_time() - start
        after(results)
    return results


def audit_suite(case: "Case", x: Images, y: Labels) -> Results:
    """Do what `attack_in_order` does, with all the attacks of an audit."""
    from advens.attacks.queries import answers
    from advens.auditing.suite import Budget, run_suite, suite
    from advens.auditing.work import Work, identity_of

    ensemble = case.ensemble
    _, log_probs = answers(ensemble, x, case.batch_size)
    attacks = suite(
        ensemble,
        log_probs.shape[1],
        num_steps=case.num_steps,
        num_queries=case.num_queries,
    )
    start = time.process_time()
    labels = y.astype("int32")
    found, x_adv = run_suite(
        Work(ensemble, x, labels, identity_of(ensemble, x, labels)),
        log_probs,
        attacks,
        Budget(case.eps, case.norm, 1, case.seed, case.batch_size),
        then=0,
    )
    # What the suite notes is time on the clock, some of which other programs had.
    share = (time.process_time() - start) / sum(result.seconds for result in found)
    _check_budget(case, "audit", x, x_adv)
    right = _right(case, x, y)
    results: Results = {"none": (right, 0.0)}
    for result in found:
        right = right & ~result.broken
        results[result.attack.name] = right, share * result.seconds
    # An image at the border may be judged otherwise in a batch of another size.
    differing = np.mean(right != _right(case, x_adv, y))
    if differing > 0.002:
        raise ValueError(f"Of the audit's images, {differing:.2%} do not fool anyone.")
    return results


def _right(case: "Case", x: Images, y: Labels) -> Answers:
    from advens.evaluation.evaluate import evaluate

    [outcomes] = evaluate(case.ensemble, x, y, batch_size=case.batch_size)
    return outcomes.ensemble


def _check_budget(case: "Case", name: str, x: Images, x_adv: Images) -> None:
    """Raise a `ValueError` if an attack has taken more than it was given."""
    change = (x_adv - x).reshape(len(x), -1)
    order = np.inf if case.norm == "linf" else 2
    largest = np.linalg.norm(change, order, axis=1).max()
    if largest > case.eps + 1e-5 or x_adv.min() < 0 or x_adv.max() > 1:
        raise ValueError(
            f"{name} must stay within eps={case.eps} and [0, 1]. Received: {largest} "
            f"and {x_adv.min()} to {x_adv.max()}"
        )


def _keep(case: str, contender: str, y: Labels, results: Results) -> None:
    """Show the last result, and write all of them if they are to be saved."""
    name, (right, seconds) = list(results.items())[-1]
    line = f"{case}: {contender}, {name}: {right.mean():.4f}, {seconds:.1f} s"
    print(line, flush=True)
    if not _SAVE.value:
        return
    directory = Path(_SAVE.value)
    directory.mkdir(parents=True, exist_ok=True)
    parts = [case, _LOGITS.value, _NORM.value, _EPS.value, contender]
    if _INDEPENDENT.value:
        parts.append("independent")
    np.savez_compressed(
        directory / ("-".join(str(part) for part in parts if part) + ".npz"),
        y=y,
        seconds=np.array([seconds for _, seconds in results.values()]),
        **{name: right for name, (right, _) in results.items()},
    )


def _of_each(
    results: dict[str, dict[str, Results]], number: Callable[[Answers, float], float]
) -> dict[str, dict[str, dict[str, float]]]:
    return {
        method: {
            name: {attack: number(*value) for attack, value in of_attack.items()}
            for name, of_attack in of_contender.items()
        }
        for method, of_contender in results.items()
    }


if __name__ == "__main__":
    common.run(main)
