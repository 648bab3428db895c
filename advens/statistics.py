"""Intervals and tests over per-image outcomes."""


def wilson_interval(
    accuracy: float, n: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the Wilson score interval of an accuracy.

    Wilson 1927, "Probable inference, the law of succession, and statistical
    inference", JASA 22(158). With p the accuracy and z the normal quantile of
    `(1 + confidence) / 2`, the bounds are
    `(p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)`.

    Args:
        accuracy: share of right answers, in [0, 1]. `accuracy * n` need not be whole:
            a mean over members has the images, not the answers, as its units.
        n: number of images, >= 1.
        confidence: share of such intervals that hold the true accuracy, in (0, 1).

    Returns:
        The lower and the upper bound, both in [0, 1].
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"`accuracy` must be in [0, 1]. Received: accuracy={accuracy}")
    if n < 1:
        raise ValueError(f"`n` must be >= 1. Received: n={n}")
    if not 0 < confidence < 1:
        raise ValueError(
            f"`confidence` must be in (0, 1). Received: confidence={confidence}"
        )
    # Imported here since it takes a second, which whoever needs no interval saves.
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(
        accuracy * n, n, alpha=1 - confidence, method="wilson"
    )
    # Rounding alone can carry the bounds of 0 and 1 out of [0, 1].
    return max(0.0, float(low)), min(1.0, float(high))
