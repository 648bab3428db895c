"""The balls around images in which attacks search: L-infinity and L2."""

from typing import Literal

import numpy as np

from advens.arrays import Floats, Images

Norm = Literal["linf", "l2"]


def lengths(changes: Floats, norm: Norm) -> Floats:
    """Return the norm of each image's change, `(n,)`."""
    flat = changes.reshape(len(changes), -1)
    if norm == "linf":
        return np.abs(flat).max(axis=1)
    return np.linalg.norm(flat, axis=1)


def projected(x_adv: Images, x: Images, eps: Floats, norm: Norm) -> Images:
    """Return the nearest images within eps of `x`, clipped to [0, 1].

    In L2 the clipping comes last, which does not lead out of the ball: `x` lies in
    [0, 1] itself.

    Args:
        x_adv: `(n, ...)` float32.
        x: `(n, ...)` float32 in [0, 1].
        eps: `(n,)`, the radii, > 0.
        norm: of the balls.
    """
    if norm == "linf":
        radii = spread(eps, x)
        return np.clip(x_adv, np.maximum(x - radii, 0), np.minimum(x + radii, 1))
    changes = x_adv - x
    factors = np.minimum(1, eps / np.maximum(lengths(changes, norm), 1e-12))
    return np.clip(x + changes * spread(factors, x), 0, 1).astype("float32")


def steepest(grads: Floats, norm: Norm) -> Floats:
    """Return the change of norm 1 that raises the loss most: sign or unit vector.

    A gradient of zero gives a change of zero.
    """
    if norm == "linf":
        return np.sign(grads)
    # Squares of tiny gradients would underflow.
    largest = np.maximum(lengths(grads, "linf"), np.finfo("float32").tiny)
    grads = grads / spread(largest, grads)
    return grads / spread(np.maximum(lengths(grads, norm), 1e-12), grads)


def random_start(
    x: Images, eps: Floats, norm: Norm, rng: np.random.Generator
) -> Images:
    """Return random images in the balls around `x`, uniform but for the clipping."""
    if norm == "linf":
        changes = spread(eps, x) * rng.uniform(-1, 1, x.shape)
    else:
        changes = rng.normal(size=x.shape)
        size = np.prod(x.shape[1:])
        radii = eps * rng.uniform(size=len(x)) ** (1 / size)
        changes *= spread(radii / np.maximum(lengths(changes, norm), 1e-12), x)
    return projected((x + changes).astype("float32"), x, eps, norm)


def radii(eps: float | Floats, x: Images) -> Floats:
    """Return one radius per image, `(n,)`, after checking that it is > 0."""
    eps = np.asarray(eps, "float32")
    if not (eps > 0).all() or not np.isfinite(eps).all() or eps.ndim > 1:
        raise ValueError(f"`eps` must be > 0 and finite. Received: eps={eps}")
    return np.broadcast_to(eps, len(x))


def spread(values: Floats, x: Images) -> Floats:
    """Return one value per image in a shape that broadcasts against the images."""
    return values.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
