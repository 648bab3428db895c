"""What the attacks on one method of Table 2 cost, and the passes that they need."""

import functools
import tempfile
from collections.abc import Iterator, Sequence

import tensorflow as tf

import common
import peers
from advens import backend
from advens.arrays import Floats, Images, Labels
from advens.attacks.threat import Attack, Threat
from advens.evaluation.evaluate import evaluate_batches
from advens.evaluation.outcomes import Outcomes
from advens.evaluation.stored import outcomes_spec, stored_outcomes
from advens.storage.store import Store
from advens.strauss2017 import columns
from advens.strauss2017.readings import PRINTED, columns_read

_TABLE2 = columns_read("table2", PRINTED.labels)


def passes(num_members: int, attacks: Sequence[Attack]) -> dict[str, int]:
    """Count the passes of a batch through one member that the attacks cannot avoid.

    Attacks along the same gradient share its first step, which also gives the labels
    that are predicted again. The first steps of Grad. 2 and of the ensemble gradient
    count, although they could be computed from the members' first gradients. Each
    member judges the clean images once, and the images of each attack once.
    """
    steps = 1 + sum(attack.num_steps - 1 for attack in attacks)
    threats = [t for t in columns.threats(_TABLE2, attacks, num_members) if t]
    followed = sum(1 if t.gradient == "member" else num_members for t in threats)
    return {
        "gradient pass": steps * followed,
        "forward pass": num_members * (1 + len(attacks) * len(threats)),
    }


def measure(
    case: peers.Case, x: Images, y: Labels, attacks: Sequence[Attack]
) -> dict[str, Floats]:
    """Time all cells, and a pass of each kind through the member of `case`.

    The outcomes go into a new store each time, as those of a script do. Tracing is not
    measured: a script does it once, for all images.

    Args:
        case: the ensemble, and the gradient of one of its members.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        attacks: the attacks of the table.

    Returns:
        Seconds over all images, `(rounds,)`, of `"gradient pass"`, `"forward pass"` and
        `"cells"`.
    """
    gradient_pass = case.in_batches(tf.function(peers.tape_gradient(case)))
    forward_pass = case.in_batches(tf.function(lambda x, y: case.network(x)))
    return common.in_turns(
        {
            "gradient pass": functools.partial(gradient_pass, x, y),
            "forward pass": functools.partial(forward_pass, x, y),
            "cells": functools.partial(_evaluate_all, case, x, y, attacks),
        }
    )


def _evaluate_all(
    case: peers.Case, x: Images, y: Labels, attacks: Sequence[Attack]
) -> None:
    """Attack along each gradient of Table 2 and store the outcomes."""
    with tempfile.TemporaryDirectory() as root:
        threats = columns.threats(_TABLE2, attacks, len(case.ensemble))
        for threat, followed in threats.items():
            _evaluate_and_store(case, x, y, threat, followed, Store(root))


def _evaluate_and_store(
    case: peers.Case,
    x: Images,
    y: Labels,
    threat: Threat | None,
    attacks: Sequence[Attack],
    store: Store,
) -> None:
    spec = outcomes_spec({}, threat=threat, attacks=attacks, backend=backend.name())

    def evaluate_from(done: int) -> Iterator[list[Outcomes]]:
        return evaluate_batches(
            case.ensemble,
            x[done:],
            y[done:],
            threat=threat,
            attacks=attacks,
            batch_size=case.batch_size,
        )

    stored_outcomes(store, spec, len(x), evaluate_from)
