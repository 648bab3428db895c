"""Audits made up from a seed, in the format of audit.json and outcomes.npz."""

import numpy as np
from scipy.ndimage import gaussian_filter

from advens.evaluation.statistics import wilson_interval

ATTACKS = [
    ("APGD-CE, ensemble gradient", "apgd", "cross_entropy", "ensemble", 100),
    ("APGD-DLR, ensemble gradient", "apgd", "dlr", "ensemble", 100),
    ("APGD-T, ensemble gradient", "apgd", "targeted_dlr", "ensemble", 100),
    ("PGD, Grad. 2", "pgd", "cross_entropy", "mean_member", 100),
    ("APGD-CE, mean logit", "apgd", "cross_entropy", "mean_logit", 100),
    ("APGD-CE, Grad. 1 of each member", "apgd", "cross_entropy", "member", 100),
    ("Square", "square", "cross_entropy", None, 5000),
]
CHECKS = {
    "noise": "Random noise is weaker than gradients",
    "transfer": "No image falls to transfer alone",
    "black_box": "The black box is not stronger than the white box",
    "unbounded": "Without bound, accuracy goes to chance",
    "steps": "Twice the steps change little",
    "zero_gradients": "Gradients are not zero",
}


def accuracy(right):
    low, high = wilson_interval(float(np.mean(right)), len(right))
    return {"value": float(np.mean(right)), "low": low, "high": high}


def share(value, n):
    return accuracy(np.arange(n) < round(value * n))


def sample_audit(
    *,
    n=40,
    shape=(8, 8, 1),
    num_classes=10,
    num_members=3,
    eps=0.1,
    norm="linf",
    seed=0,
    failed=(),
    x=None,
    y=None,
):
    """Return a document, its outcomes and the images.

    `failed` are checks of the panel; `x` and `y` take the place of random images.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(n, *shape)).astype("float32") if x is None else x
    n, m, k = len(x), num_members, num_classes
    y = rng.integers(k, size=n) if y is None else y
    shape = x.shape[1:]

    def predictions(right):
        return np.where(right, y, (y + rng.integers(1, k, size=n)) % k)

    difficulty = rng.uniform(size=n)
    clean_members = np.stack(
        [predictions(difficulty + rng.normal(0, 0.1, n) < 0.96) for _ in range(m)]
    )
    clean_ensemble = predictions(difficulty < 0.97)
    first = np.searchsorted([0.4, 0.46, 0.58, 0.62, 0.68, 0.69, 0.7], 1 - difficulty)
    broken_by = np.where(clean_ensemble != y, -2, np.where(first == 7, -1, first))
    noise = rng.normal(size=x.shape)
    if x.ndim == 4:
        noise = gaussian_filter(noise, (0, 1, 1, 0))
    if norm == "linf":
        step = eps * np.sign(noise)
    else:
        step = eps * noise / np.linalg.norm(noise.reshape(n, -1), axis=1).max()
    x_adv = np.clip(x + step, 0, 1).astype("float32")
    x_adv[broken_by == -2] = x[broken_by == -2]
    robust = broken_by == -1
    predicted = np.where(robust, y, predictions(np.zeros(n, bool)))
    predicted = np.where(broken_by == -2, clean_ensemble, predicted)
    outcomes = {
        "y": y,
        "clean_members": clean_members,
        "clean_ensemble": clean_ensemble,
        "robust": robust,
        "x_adv": x_adv,
        "predicted": predicted,
        "broken_by": broken_by,
        "sample": np.arange(0, n, 2),
        "smallest_eps": np.where(robust, np.inf, eps * rng.uniform(size=n))[::2],
    }
    clean = accuracy(clean_ensemble == y)
    document = {
        "advens": "0.1.0",
        "created": "2026-11-27T19:30:00Z",
        "command": ["advens-audit", "a.keras", "b.keras", "--eps", str(eps)],
        "versions": {"python": "3.11.2", "keras": "3.15.0", "numpy": "2.4.6"},
        "hardware": {"devices": ["cpu:0", "cpu:1"], "cpu_count": 2, "gpu": None},
        "seconds": 754.3,
        "settings": {
            "eps": eps,
            "norm": norm,
            "votes": "mean_probability",
            "seed": seed,
            "num_images": n,
            "num_classes": k,
            "image_shape": list(shape),
            "time_budget": None,
        },
        "members": [
            {
                "name": f"member {i}",
                "file": f"models/member_{i}.keras",
                "sha256": f"{i:02x}" * 32,
                "parameters": 431_080,
                "accuracy": accuracy(clean_members[i] == y),
                "robust_accuracy": share(0.1, n),
            }
            for i in range(m)
        ],
        "data": {"file": "mnist.npz", "sha256": f"{seed:02x}" * 32},
        "clean_accuracy": clean,
        "robust_accuracy": accuracy(robust),
        "trusted": not failed,
        "verdict": f"The ensemble classifies {100 * robust.mean():.1f} % of the images "
        f"correctly whatever the audit does to them within eps={eps:g} ({norm}).",
        "attacks": _attacks(broken_by, n),
        "panel": [
            {
                "check": check,
                "title": title,
                "verdict": "failed" if check in failed else "passed",
                "reason": "Noise broke 0.4 % of the images, gradients 69.1 %.",
            }
            for check, title in CHECKS.items()
        ],
        "curves": {
            "eps": [
                {
                    "eps": eps * i / 4,
                    "accuracy": share(clean["value"] * 0.35 ** (i / 3), n),
                    "noise": share(clean["value"] - i / 100, n),
                }
                for i in range(9)
            ],
            "steps": [
                {"num_steps": s, "accuracy": share(0.2 + 0.5 / s**0.6, n)}
                for s in (1, 2, 5, 10, 20, 50, 100, 1000)
            ],
            "members": [
                {
                    "num_members": i + 1,
                    "clean": share(0.97 - 0.05 / (i + 1), n),
                    "accuracy": share(0.35 - 0.2 / (i + 1), n),
                }
                for i in range(m)
            ],
        },
        "why": _why(rng, y, clean_ensemble, robust, predicted, m, k),
    }
    return document, outcomes, x


def _attacks(broken_by, n):
    right = int((broken_by > -2).sum())
    attacks = []
    for i, (name, method, objective, gradient, num_steps) in enumerate(ATTACKS):
        broken = int((broken_by == i).sum())
        attacks.append(
            {
                "name": name,
                "method": method,
                "objective": objective,
                "gradient": gradient,
                "num_steps": num_steps,
                "attempted": right,
                "broken": broken,
                "accuracy_after": share((right - broken) / n, n),
                "zero_gradient": 0.02 if i == 3 else 0.0,
                "seconds": 3.0 * num_steps**0.7,
                "done": i != len(ATTACKS) - 1,
            }
        )
        right -= broken
    return attacks


def _why(rng, y, clean, robust, predicted, m, k):
    n = len(y)

    def calibration(shift):
        bins = [
            {
                "low": i / 15,
                "high": (i + 1) / 15,
                "count": 1 + int(n * (i / 15) ** 6),
                "confidence": (i + 0.5) / 15,
                "accuracy": max(0.0, (i + 0.5) / 15 - shift * (i / 15)),
            }
            for i in range(3, 15)
        ]
        return {"ece": 0.9 * shift, "brier": shift, "bins": bins}

    def symmetric(low, high, diagonal):
        matrix = rng.uniform(low, high, size=(m, m))
        matrix = (matrix + matrix.T) / 2
        np.fill_diagonal(matrix, diagonal)
        return matrix.tolist()

    transfer = rng.uniform(0.3, 0.7, size=(m, m + 1))
    np.fill_diagonal(transfer, 0.05)
    return {
        "transfer": transfer.tolist(),
        "error_agreement": symmetric(-0.05, 0.6, 1.0),
        "sign_agreement": symmetric(0.5, 0.7, 1.0),
        "calibration": {"clean": calibration(0.03), "attacked": calibration(0.6)},
        "classes": [
            {
                "class": label,
                "num_images": int((y == label).sum()),
                "clean": accuracy(clean[y == label] == label),
                "robust": accuracy(robust[y == label]),
                "taken_for": np.bincount(predicted[y == label], minlength=k).tolist(),
            }
            for label in np.unique(y).tolist()
        ],
    }
