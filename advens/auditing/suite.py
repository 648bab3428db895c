"""The attacks of an audit, one after the other, each on what the others left."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from advens.arrays import Answers, Floats, Images, Labels
from advens.attacks.apgd import apgd
from advens.attacks.balls import Norm
from advens.attacks.compiled import gradient
from advens.attacks.queries import Followed, Scores, answers
from advens.attacks.square import square
from advens.attacks.threat import GradientSource, Objective, Threat
from advens.auditing.work import Arrays, Piece, Work
from advens.models.ensemble import Ensemble

# Images of a piece: what a killed audit has to do again, at most.
_BLOCK = 1000
# Croce & Hein 2020, arXiv:2003.01690, Section 5: the nine most likely other classes.
_MOST_TARGETS = 9


@dataclasses.dataclass(frozen=True)
class SuiteAttack:
    """An attack of the suite.

    Attributes:
        name: what the report calls it.
        method: which attack.
        num_steps: steps along a gradient, or queries of `"square"`.
        gradient: which gradient it follows, see `Threat`; None for `"square"`. For
            `"member"` it attacks each member in turn.
        objective: see `Threat`.
    """

    name: str
    method: Literal["apgd", "square"]
    num_steps: int
    gradient: GradientSource | None = None
    objective: Objective = "cross_entropy"


@dataclasses.dataclass(frozen=True)
class Budget:
    """How hard an audit attacks.

    Attributes:
        eps: radius of the ball, in units of the [0, 1] range, > 0.
        norm: of the ball.
        num_draws: see `Threat`.
        seed: of all random numbers, >= 0.
        batch_size: images per call; it only changes the speed.
    """

    eps: float
    norm: Norm
    num_draws: int
    seed: int
    batch_size: int

    def settings(self) -> dict[str, object]:
        """Return what determines a result: all but the batch size."""
        settings = dataclasses.asdict(self)
        del settings["batch_size"]
        return settings


@dataclasses.dataclass(frozen=True)
class Result:
    """What an attack of the suite did.

    Attributes:
        attack: which attack.
        attempted: `(n,)` bool, which images it attacked: those that were left.
        broken: `(n,)` bool, which of them fooled the ensemble.
        zero_gradient: `(n,)` bool, where its gradient was exactly zero at some step.
        seconds: the time that it took.
        done: whether it had time to attack all of them.
    """

    attack: SuiteAttack
    attempted: Answers
    broken: Answers
    zero_gradient: Answers
    seconds: float
    done: bool


def own_gradient(ensemble: Ensemble) -> GradientSource:
    """Return the gradient that is closest to the ensemble's own answer."""
    return "adaptive" if ensemble.votes == "majority" else "ensemble"


def suite(
    ensemble: Ensemble, num_classes: int, *, num_steps: int, num_queries: int
) -> list[SuiteAttack]:
    """Return the attacks of an audit: those of AutoAttack, and those for ensembles.

    Croce & Hein's suite (arXiv:2003.01690) has APGD with cross-entropy, targeted APGD
    with the difference of logits ratio, another white-box attack, and Square. Here they
    follow the ensemble's own gradient, and APGD follows every other gradient that an
    ensemble has, too.

    Args:
        ensemble: the ensemble.
        num_classes: its number of classes; the ratio needs three.
        num_steps: steps of each APGD.
        num_queries: queries of Square.
    """
    own = own_gradient(ensemble)
    names: dict[GradientSource, str] = {
        "ensemble": "ensemble gradient",
        "adaptive": "adaptive weights",
        "mean_logit": "mean logit",
        "mean_member": "Grad. 2",
        "normalized": "normalized gradients",
        "member": "Grad. 1 of each member",
    }
    others = [source for source in names if source not in (own, "ensemble")]
    if len(ensemble) == 1:  # these coincide
        others = []
    attacks = [SuiteAttack(f"APGD-CE, {names[own]}", "apgd", num_steps, own)]
    if num_classes > 2:
        attacks += [
            SuiteAttack(f"APGD-DLR, {names[own]}", "apgd", num_steps, own, "dlr"),
            SuiteAttack(
                f"APGD-T, {names[own]}", "apgd", num_steps, own, "targeted_dlr"
            ),
        ]
    attacks += [
        SuiteAttack(f"APGD-CE, {names[source]}", "apgd", num_steps, source)
        for source in others
    ]
    return [*attacks, SuiteAttack("Square", "square", num_queries)]


def run_suite(
    work: Work,
    log_probs: Floats,
    attacks: Sequence[SuiteAttack],
    budget: Budget,
    *,
    then: int,
) -> tuple[list[Result], Images]:
    """Attack the images that are classified correctly; what is broken drops out.

    Args:
        work: does the pieces.
        log_probs: `(n, k)`, what the ensemble answers without attack.
        attacks: the attacks, in turn.
        budget: how hard they are.
        then: steps per image of what follows the suite, to estimate the time left.

    Returns:
        What each attack did, and `(n, ...)` images: those that fooled the ensemble; for
        those that resist all attacks, the best attempt of the first; for those that are
        misclassified anyway, themselves.
    """
    ensemble, x, y = work.ensemble, work.x, work.y
    left = log_probs.argmax(axis=1) == y
    x_adv = x.copy()
    results = []
    for index, attack in enumerate(attacks):
        attempted, broken, zero = (np.zeros(len(x), bool) for _ in range(3))
        rows, seconds, done = np.flatnonzero(left), 0.0, True
        ahead = sum(_cost(ensemble, a, log_probs.shape[1]) for a in attacks[index:])
        work.expect(len(rows) * (ahead + then))
        blocks = np.split(rows, range(_BLOCK, len(rows), _BLOCK)) if len(rows) else []
        pieces = [
            Piece(
                attack.name,
                {
                    "attack": dataclasses.asdict(attack),
                    "budget": budget.settings(),
                    "images": block.tolist(),
                },
                block,
                functools.partial(
                    _attacked,
                    attack=attack,
                    log_probs=log_probs[block],
                    budget=budget,
                    seeds=(budget.seed, index, int(block[0])),
                    keep_all=index == 0,  # the others' failures need no space
                ),
                len(block) * _cost(ensemble, attack, log_probs.shape[1]),
            )
            for block in blocks
        ]
        for block, arrays in zip(blocks, work.do(pieces), strict=True):
            if arrays is None:
                done = False
                continue
            attempted[block] = True
            broken[block] = arrays["broken"]
            zero[block] = arrays["zero_gradient"]
            kept = np.ones(len(block), bool) if index == 0 else arrays["broken"]
            x_adv[block[kept]] = arrays["x_adv"]
            seconds += float(arrays["seconds"])
        left &= ~broken
        results.append(Result(attack, attempted, broken, zero, seconds, done))
    return results, x_adv


def _attacked(
    ensemble: Ensemble,
    x: Images,
    y: Labels,
    *,
    attack: SuiteAttack,
    log_probs: Floats,
    budget: Budget,
    seeds: Sequence[int],
    keep_all: bool,
) -> Arrays:
    """Attack some images; whether they are broken is judged anew."""
    rng = np.random.default_rng(seeds)
    x_adv = x.copy()
    broken, zero_gradient = np.zeros(len(x), bool), np.zeros(len(x), bool)
    ranked = np.argsort(-log_probs, axis=1, kind="stable")
    for index, rank in _turns(ensemble, attack, log_probs.shape[1]):
        left = np.flatnonzero(~broken)
        if not len(left):
            break
        if attack.gradient is None:
            found = square(
                Scores(ensemble, budget.batch_size),
                x[left],
                y[left],
                eps=budget.eps,
                norm=budget.norm,
                num_queries=attack.num_steps,
                rng=rng,
            )
        else:
            threat = Threat(
                attack.gradient,
                index,
                num_draws=budget.num_draws,
                objective=attack.objective,
            )
            found = apgd(
                Followed(gradient(ensemble, threat), budget.batch_size),
                x[left],
                y[left],
                eps=budget.eps,
                norm=budget.norm,
                num_steps=attack.num_steps,
                targets=None if rank is None else ranked[left, rank].astype("int32"),
                rng=rng,
            )
        x_adv[left] = found.x_adv
        zero_gradient[left] |= found.zero_gradient
        _, log_probs_adv = answers(ensemble, found.x_adv, budget.batch_size)
        broken[left] = log_probs_adv.argmax(axis=1) != y[left]
    return {
        "x_adv": x_adv if keep_all else x_adv[broken],
        "broken": broken,
        "zero_gradient": zero_gradient,
    }


def _cost(ensemble: Ensemble, attack: SuiteAttack, num_classes: int) -> float:
    """Return about how many steps through the whole ensemble an image takes."""
    if attack.gradient == "member":
        return attack.num_steps
    steps = attack.num_steps * len(_turns(ensemble, attack, num_classes))
    return steps / 3 if attack.gradient is None else steps  # no gradient is computed


def _turns(
    ensemble: Ensemble, attack: SuiteAttack, num_classes: int
) -> list[tuple[int | None, int | None]]:
    """Return whose gradients an attack follows, and the ranks of its target classes."""
    if attack.gradient == "member":
        return [(index, None) for index in range(len(ensemble))]
    if attack.objective == "targeted_dlr":
        return [(None, rank) for rank in range(1, min(_MOST_TARGETS + 1, num_classes))]
    return [(None, None)]
