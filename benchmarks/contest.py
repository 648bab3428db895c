"""Let advens and its peers attack in turns, and compare speeds and images."""

import functools
from typing import TypeAlias, get_args

import numpy as np

import common
import peers
from advens import backend
from advens.arrays import Floats, Images, Labels
from advens.attacks.threat import Compute
from advens.evaluation.evaluate import evaluate

# What is measured of a contender: arrays over the rounds, and single numbers.
Result: TypeAlias = dict[str, Floats | float]


def contend(
    case: peers.Case, x: Images, y: Labels, missing: dict[str, str], bfloat16: bool
) -> dict[str, Result]:
    """Let all contenders attack in turns.

    Args:
        case: what they compute.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        missing: filled in with the contenders that are not installed, and why.
        bfloat16: whether advens attacks with gradients in bfloat16, too.

    Returns:
        For each contender `images_per_second` and `ratios`, the speed of advens over
        its own, both `(rounds,)`; `robust_accuracy`; and `identical_pixels`, the share
        of pixels that are the same as advens's. For bfloat16 also `changed_signs`, the
        share of the entries of the first gradient that change their sign.
    """
    calls: dict[str, common.Call] = {}
    x_adv: dict[str, Images] = {}

    def attack_and_keep(name: str, attack: peers.Crafting) -> None:
        x_adv[name] = attack(x, y)

    for name, contender in peers.CONTENDERS.items():
        if name == "advens, bfloat16" and not bfloat16:
            continue
        try:
            attack = contender(case)
        except ImportError as error:
            missing[name] = str(error)
            continue
        if attack:
            calls[name] = functools.partial(attack_and_keep, name, attack)
    seconds = common.in_turns(calls)
    results: dict[str, Result] = {}
    for name, durations in seconds.items():
        [outcomes] = evaluate(case.ensemble, x_adv[name], y)
        difference = np.abs(x_adv[name] - x_adv["advens"])
        results[name] = {
            "images_per_second": len(x) / durations,
            "ratios": durations / seconds["advens"],
            "robust_accuracy": float(outcomes.ensemble.mean()),
            "identical_pixels": float(np.mean(difference <= 1e-6)),
        }
    if bfloat16:
        results["advens, bfloat16"]["changed_signs"] = _changed_signs(case, x, y)
    return results


def _changed_signs(case: peers.Case, x: Images, y: Labels) -> float:
    """Return the share of the first gradient's signs that differ between precisions."""
    signs = []
    for compute in get_args(Compute):
        compiled = backend.compile(peers.advens_gradient(case, compute), case.ensemble)
        signs.append(np.sign(case.in_batches(compiled)(x, y)))
    return float(np.mean(signs[0] != signs[1]))
