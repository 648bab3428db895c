"""`audit`: how robust an ensemble is, and whether the number can be trusted."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np

from advens import backend
from advens.arrays import Images, Labels
from advens.attacks.balls import Norm
from advens.attacks.queries import answers
from advens.auditing import probes
from advens.auditing.result import Audit, AuditedMember
from advens.auditing.suite import Budget, SuiteAttack, run_suite, suite
from advens.auditing.work import Arrays, Work, identity_of
from advens.checks import (
    check_choice,
    check_count,
    check_labels,
    check_positive,
    checked_images,
)
from advens.models.ensemble import Ensemble, check_ensemble, check_images
from advens.progress import Bars
from advens.storage.store import Store

# Steps of the attacks on a sample of the images, of which there are many.
_PROBE_STEPS = 30
_SIZES = (1, 2, 3, 5, 10, 20, 50)


def audit(
    ensemble: Ensemble,
    x: Images,
    y: Labels,
    *,
    eps: float,
    norm: Norm = "linf",
    num_steps: int = 100,
    num_queries: int = 5000,
    num_draws: int = 1,
    num_probes: int = 200,
    seed: int = 0,
    batch_size: int = 250,
    store: Store | None = None,
    time_budget: float | None = None,
    bars: Bars | None = None,
) -> Audit:
    """Attack an ensemble as hard as this package can, and judge the result.

    A suite of attacks runs on the images that are classified correctly; what is broken
    drops out. Then probes on a sample of the images tell how far the number can be
    trusted, how accuracy falls with eps, and why. The same seed gives the same result.

    Args:
        ensemble: the ensemble.
        x: `(n, h, w, c)` float in [0, 1].
        y: `(n,)` or `(n, 1)` int labels.
        eps: radius of the ball around each image, in units of the [0, 1] range, > 0.
        norm: of the ball, `"linf"` or `"l2"`.
        num_steps: steps of each APGD, >= 1.
        num_queries: queries of Square per image, >= 1.
        num_draws: how often random members are evaluated for a gradient, see `Threat`.
        num_probes: images in the sample, drawn by the seed, >= 1.
        seed: of all random numbers, >= 0.
        batch_size: images per call; it only changes the speed.
        store: keeps what is done, so that a killed audit goes on where it was; None to
            keep nothing.
        time_budget: minutes after which no further attack or probe is started.
        bars: shows the progress.

    Returns:
        The outcomes of every attack on every image, see `Audit`.

    Raises:
        ValueError: if the arguments cannot be judged, or an answer or a gradient of the
            ensemble is NaN.
    """
    x, y = _checked(ensemble, x, y)
    check_positive("eps", eps)
    check_choice("norm", norm, ("linf", "l2"))
    for name, count in (
        ("num_steps", num_steps),
        ("num_queries", num_queries),
        ("num_draws", num_draws),
        ("num_probes", num_probes),
        ("batch_size", batch_size),
    ):
        check_count(name, count)
    if time_budget is not None:
        check_positive("time_budget", time_budget)
    budget = Budget(float(eps), norm, num_draws, seed, min(batch_size, len(x)))
    classes, log_probs = answers(ensemble, x, budget.batch_size)
    attacks = suite(
        ensemble, log_probs.shape[1], num_steps=num_steps, num_queries=num_queries
    )
    identity = identity_of(ensemble, x, y)
    sample = np.random.default_rng(seed).permutation(len(x))[:num_probes]
    sample.sort()
    with (bars or Bars()).audit() as show:
        work = Work(store, identity, time_budget, show)
        results, x_adv = run_suite(
            work, ensemble, x, y, log_probs, attacks, budget, then=10 * _PROBE_STEPS
        )
        probed = _probed(work, ensemble, x[sample], y[sample], budget, attacks)
    classes_adv, log_probs_adv = answers(ensemble, x_adv, budget.batch_size)
    return Audit(
        budget=budget,
        time_budget=time_budget,
        votes=ensemble.votes,
        members=[
            AuditedMember(
                member.name, checksum, member.count_params(), _half_precision(member)
            )
            for member, checksum in zip(ensemble, identity["members"], strict=True)
        ],
        checksum=identity["x"],
        y=y,
        image_shape=x.shape[1:],
        classes=classes,
        log_probs=log_probs,
        results=results,
        x_adv=x_adv,
        classes_adv=classes_adv,
        log_probs_adv=log_probs_adv,
        sample=sample,
        probes=probed,
        seconds=work.seconds,
        backend=backend.name(),
        devices=backend.devices(),
    )


def _probed(
    work: Work,
    ensemble: Ensemble,
    x: Images,
    y: Labels,
    budget: Budget,
    attacks: Sequence[SuiteAttack],
) -> dict[str, Arrays | None]:
    """Return what each probe found on the sample; None for which there was no time."""
    images = (ensemble, x, y)
    twice = dataclasses.replace(budget, eps=2 * budget.eps)
    long = 2 * attacks[0].num_steps
    makers: dict[str, tuple[int, Callable[[], Arrays]]] = {
        "randomness": (1, lambda: probes.randomness(ensemble, x, budget)),
        "one_step": (1, lambda: probes.one_step(*images, budget)),
        "noise": (10, lambda: probes.noise(*images, budget)),
        "twice_eps": (30, lambda: probes.robust(*images, _PROBE_STEPS, twice)),
        "unbounded": (30, lambda: probes.unbounded(*images, budget)),
        "steps": (long, lambda: probes.many_steps(*images, long, budget)),
        "eps": (150, lambda: probes.smallest_eps(*images, _PROBE_STEPS, budget)),
    }
    if len(ensemble) > 1:
        makers["signs"] = (1, lambda: probes.signs(*images, budget))
        makers["transfer"] = (
            30,
            lambda: probes.transfer(*images, _PROBE_STEPS, budget),
        )
    for size in sorted({*(s for s in _SIZES if s < len(ensemble)), len(ensemble)}):
        part = functools.partial(
            probes.robust, ensemble.first(size), x, y, _PROBE_STEPS, budget
        )
        makers[f"members {size}"] = (30, part)
    left = sum(cost for cost, _ in makers.values())
    settings = {
        "budget": budget.settings(),
        "num_probes": len(x),
        "num_steps": attacks[0].num_steps,
    }
    probed = {}
    for name, (cost, make) in makers.items():
        work.expect(left * len(x))
        probed[name] = work.piece(name, settings, make, cost=cost * len(x))
        left -= cost
    return probed


def _checked(ensemble: Ensemble, x: Images, y: Labels) -> tuple[Images, Labels]:
    check_ensemble(ensemble)
    x, y = checked_images(x, y, attacked=True)
    check_images(ensemble, x)
    num_classes = ensemble.num_classes or ensemble(x[:1]).shape[-1]
    check_labels(y, num_classes)
    return x.astype("float32"), y.astype("int32")


def _half_precision(model: keras.Model) -> str | None:
    """Return the dtype of less than float32 in which a layer computes, if any does."""
    for layer in model._flatten_layers():
        if layer.compute_dtype in ("float16", "bfloat16"):
            return layer.compute_dtype
    return None
