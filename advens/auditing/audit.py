"""`audit`: how robust an ensemble is, and whether the number can be trusted."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from advens import backend
from advens.arrays import Images, Ints, Labels
from advens.attacks.balls import Norm
from advens.attacks.queries import answers
from advens.auditing import probes
from advens.auditing.result import Audit, AuditedMember
from advens.auditing.suite import Budget, SuiteAttack, run_suite, suite
from advens.auditing.work import Arrays, Piece, Work, identity_of
from advens.checks import (
    check_choice,
    check_count,
    check_labels,
    check_positive,
    checked_images,
)
from advens.cluster.client import Cluster
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
    cluster: Cluster | None = None,
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
            keep nothing, or that of a cluster.
        cluster: whose workers attack; it keeps what is done in its store. None for this
            machine alone.
        time_budget: minutes after which no further attack or probe is started.
        bars: shows the progress.

    Returns:
        The outcomes of every attack on every image, see `Audit`.

    Raises:
        ValueError: if the arguments cannot be judged, an answer or a gradient of the
            ensemble is NaN, or a member cannot be sent to a cluster.
        RuntimeError: if a worker of the cluster fails.
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
    if cluster is not None:
        if not isinstance(cluster, Cluster):
            raise ValueError(
                "`cluster` must be a `Cluster`, as Cluster(address, store). Received: "
                f"{cluster!r}"
            )
        if store is not None and store.root != cluster.store.root:
            raise ValueError(
                "`store` must be None or that of `cluster`. Received: "
                f"{store.root} and {cluster.store.root}"
            )
        store = cluster.store
    budget = Budget(float(eps), norm, num_draws, seed, min(batch_size, len(x)))
    classes, log_probs = answers(ensemble, x, budget.batch_size)
    attacks = suite(
        ensemble, log_probs.shape[1], num_steps=num_steps, num_queries=num_queries
    )
    identity = identity_of(ensemble, x, y)
    sample = np.random.default_rng(seed).permutation(len(x))[:num_probes]
    sample.sort()
    with (bars or Bars()).audit() as show:
        work = Work(
            ensemble,
            x,
            y,
            identity,
            store=store,
            cluster=cluster,
            minutes=time_budget,
            show=show,
        )
        results, x_adv = run_suite(
            work, log_probs, attacks, budget, then=10 * _PROBE_STEPS
        )
        probed = _probed(work, sample, budget, attacks)
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
    rows: Ints,
    budget: Budget,
    attacks: Sequence[SuiteAttack],
) -> dict[str, Arrays | None]:
    """Return what each probe found on some images; None if there was no time for it."""
    num_members = len(work.ensemble)
    twice = dataclasses.replace(budget, eps=2 * budget.eps)
    steps, long = {"num_steps": _PROBE_STEPS}, 2 * attacks[0].num_steps
    probed: dict[str, tuple[int, Callable[..., Arrays], dict[str, Any]]] = {
        "randomness": (1, probes.randomness, {}),
        "one_step": (1, probes.one_step, {}),
        "noise": (10, probes.noise, {}),
        "twice_eps": (30, probes.robust, {**steps, "budget": twice}),
        "unbounded": (30, probes.unbounded, {}),
        "steps": (long, probes.many_steps, {"num_steps": long}),
        "eps": (150, probes.smallest_eps, steps),
    }
    if num_members > 1:
        probed["signs"] = (1, probes.signs, {})
        probed["transfer"] = (30, probes.transfer, steps)
    for size in sorted({*(s for s in _SIZES if s < num_members), num_members}):
        probed[f"members {size}"] = (30, probes.robust, {**steps, "size": size})
    settings = {
        "budget": budget.settings(),
        "num_probes": len(rows),
        "num_steps": attacks[0].num_steps,
    }
    pieces = [
        Piece(
            name,
            settings,
            rows,
            functools.partial(probe, **{"budget": budget, **arguments}),
            cost * len(rows),
        )
        for name, (cost, probe, arguments) in probed.items()
    ]
    work.expect(sum(piece.cost for piece in pieces))
    return dict(zip(probed, work.do(pieces), strict=True))


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
