"""What the attacks on one method of Table 2 cost, and the passes that they need."""

import functools
import tempfile
from collections.abc import Sequence

import common
import numpy as np
import peers
import tensorflow as tf

from advens.attacks import Attack
from advens.evaluation import stored_outcomes
from advens.experiments import table2_threats
from advens.store import Store


def passes(num_members: int, attacks: Sequence[Attack]) -> dict[str, int]:
    """Count the passes of a batch through one member that each gradient needs.

    Attacks that follow one gradient share that of their first step, from which its
    labels come too, where they are predicted again. That first step of Grad. 2 and of
    the ensemble is counted, though it could be put together from the members'. All
    members judge each attacked image, and each clean one.
    """
    steps = 1 + sum(attack.num_steps - 1 for attack in attacks)
    threats = table2_threats(num_members).values()
    followed = [1 if t.gradient == "member" else num_members for t in threats]
    return {
        "gradient pass": steps * sum(followed),
        "forward pass": num_members * (1 + len(attacks) * len(threats)),
    }


def measure(
    case: peers.Case, x: np.ndarray, y: np.ndarray, attacks: Sequence[Attack]
) -> dict[str, np.ndarray]:
    """Time all cells, and a pass of each kind through the member of `case`.

    The cells go through a new store each time, as those of a script do. Tracing, once
    for all images of a script, is not counted.

    Args:
        case: the ensemble, and the gradient of one of its members.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        attacks: those of the table.

    Returns:
        Seconds, `(rounds,)`, of `"gradient pass"`, `"forward pass"` and `"cells"`, over
        all images.
    """

    def cells() -> None:
        with tempfile.TemporaryDirectory() as root:
            for threat in (None, *table2_threats(len(case.ensemble)).values()):
                stored_outcomes(
                    Store(root),
                    {},
                    lambda: case.ensemble,
                    x,
                    y,
                    threat=threat,
                    attacks=attacks if threat else (),
                    batch_size=case.batch_size,
                )

    gradient = case.in_batches(tf.function(peers.tape_gradient(case)))
    forward = case.in_batches(tf.function(lambda x, y: case.network(x)))
    return common.in_turns(
        {
            "gradient pass": functools.partial(gradient, x, y),
            "forward pass": functools.partial(forward, x, y),
            "cells": cells,
        }
    )
