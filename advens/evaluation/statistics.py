"""Intervals and tests over per-image outcomes.

The networks are taken as they are: an interval or a p-value speaks of further images,
not of further training.
"""

from collections.abc import Sequence

import numpy as np

from advens.arrays import Answers, Floats


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
    # Imported here, as it takes a second that not every caller needs to spend.
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(
        accuracy * n, n, alpha=1 - confidence, method="wilson"
    )
    # Rounding alone can carry the bounds of 0 and 1 out of [0, 1].
    return max(0.0, float(low)), min(1.0, float(high))


def mcnemar(a: Answers, b: Answers) -> float:
    """Return the exact two-sided p-value of two classifiers being equally accurate.

    McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12(2). If they are equally accurate, each
    image that only one of them classifies correctly belongs to either with probability
    1/2. With `i` such images of the first and `j` of the second,
    `p = min(1, 2 P(X <= min(i, j)))`, `X ~ Binomial(i + j, 1/2)`.

    Args:
        a: `(n,)` bool, the first one's right answers.
        b: `(n,)` bool, the second one's to the same images.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, (a & ~b).sum()], [(b & ~a).sum(), 0]]).pvalue)


def paired_test(a: Answers, b: Answers, *, margin: float = 0.0) -> float:
    """Return the two-sided p-value of `a` being more accurate than `b` by `margin`.

    With one run each and no margin this is `mcnemar`. With several runs each image
    counts once, by the share of its runs that are right, since the answers to one image
    are not independent. Tested is the mean difference of these shares, which the tables
    show (Wilcoxon's ranks would test another quantity). The test is Wald's z-test with
    the adjustment of Bonett and Price 2012, "Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data", JEBS 37(4): two images are
    added, one that only `a` and one that only `b` classifies correctly. With `d` the
    differences of all images, `z = (mean(d) - margin) / sqrt(var(d) / (n + 2))`.

    Args:
        a: `(k, n)` bool, right answers of k runs to n images.
        b: `(m, n)` bool, right answers of m runs to the same images.
        margin: in [-1, 1].
    """
    _check_answers(a)
    _check_answers(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            "`a` and `b` must be answers to the same images. "
            f"Received: {a.shape[1]} and {b.shape[1]} images"
        )
    if len(a) == len(b) == 1 and margin == 0:
        return mcnemar(a[0], b[0])
    from scipy.stats import norm

    d = np.append(a.mean(axis=0) - b.mean(axis=0), [1, -1])
    return float(2 * norm.sf(abs(d.mean() - margin) / np.sqrt(d.var() / len(d))))


def paired_interval(
    a: Answers, b: Answers, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the difference of two classifiers' accuracies.

    The adjusted Wald interval of Bonett and Price 2012, as in `paired_test`: with two
    images added, one that only `a` and one that only `b` classifies correctly, and `d`
    the differences of all images, `mean(d) ± z sqrt(var(d) / (n + 2))`.

    Args:
        a: `(n,)` bool, the first one's right answers.
        b: `(n,)` bool, the second one's to the same images.
        confidence: share of such intervals that hold the true difference, in (0, 1).

    Returns:
        The lower and the upper bound of accuracy(a) - accuracy(b), both in [-1, 1].
    """
    from scipy.stats import norm

    d = np.append(a.astype(float) - b, [1, -1])
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(d.var() / len(d))
    return max(-1.0, float(d.mean() - half)), min(1.0, float(d.mean() + half))


def level_test(a: Answers, level: float) -> float:
    """Return the two-sided p-value of an accuracy being `level`.

    The score test, of which `wilson_interval` is the inverse:
    `z = (p - level) / sqrt(level (1 - level) / n)`. The share of right runs on an image
    varies no more than one run's answer does, so that with several runs the test errs
    on the safe side.

    Args:
        a: `(k, n)` bool, right answers of k runs to n images.
        level: in (0, 1).
    """
    _check_answers(a)
    if not 0 < level < 1:
        raise ValueError(f"`level` must be in (0, 1). Received: level={level}")
    from statsmodels.stats.proportion import proportions_ztest

    n = a.shape[1]
    return float(proportions_ztest(a.mean() * n, n, level, prop_var=level)[1])


def holm(p_values: Sequence[float]) -> Floats:
    """Return p-values adjusted for multiple tests.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6(2): the i-th smallest of m is multiplied by `m - i + 1`, and
    none is below a smaller one's, nor above 1. Whoever rejects all hypotheses with an
    adjusted p-value below alpha makes any false rejection with probability <= alpha.

    Args:
        p_values: one or more, in [0, 1].
    """
    from statsmodels.stats.multitest import multipletests

    return multipletests(p_values, method="holm")[1]


def _check_answers(a: Answers) -> None:
    if a.ndim != 2 or not a.size or a.dtype != bool:
        raise ValueError(
            "Answers must be a bool array of shape (runs, images), not empty. "
            f"Received: {a.dtype}, shape {a.shape}"
        )
