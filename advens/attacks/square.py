"""Square: a black-box attack that changes one square of pixels at a time."""

import math

import numpy as np

from advens.arrays import Floats, Images, Labels
from advens.attacks.balls import Norm, lengths, projected, radii, spread
from advens.attacks.found import Found
from advens.attacks.queries import Scores

# The share of pixels in the first square, and the shares of the queries, in 10,000ths,
# after which it is halved: Section 5 of the source.
_FIRST_SHARE = 0.8
_HALVED_AFTER = np.array([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000])


def square(
    scores: Scores,
    x: Images,
    y: Labels,
    *,
    eps: float | Floats,
    norm: Norm = "linf",
    num_queries: int = 5000,
    rng: np.random.Generator,
) -> Found:
    """Change random squares, and keep each change that lowers the lead of the label.

    It asks for answers only, never for gradients. An image is left alone as soon as it
    is broken.

    Source: Andriushchenko et al. 2020, arXiv:1912.00049, Algorithms 1 to 3. Inputs of
    two axes count as images of one row.

    Args:
        scores: what the ensemble answers.
        x: `(n, ...)` float32 in [0, 1].
        y: `(n,)` int labels.
        eps: radius of the ball, one or one per image, in units of the [0, 1] range,
            > 0.
        norm: of the ball.
        num_queries: queries per image, >= 1.
        rng: draws the squares.
    """
    sizes = radii(eps, x)
    images = x if x.ndim == 4 else x.reshape(len(x), 1, -1, 1)
    start, propose = (_stripes, _square) if norm == "linf" else (_tiles, _bump)
    found = Found(x)
    leads = np.full(len(x), np.inf, "float32")
    changes = start(images, spread(sizes, images), rng)
    x_adv = projected(images + changes, images, sizes, norm)
    best = x_adv.copy()
    for query in range(num_queries):
        # Drawn for all images, so that no draw depends on who is broken.
        draws = rng.random((len(x), 5 + images.shape[-1]))
        rows = found.resisting()
        if not len(rows):
            break
        if query:
            sides = _sides(images.shape, query / num_queries)
            changes = best[rows] - images[rows]
            changes = propose(changes, sides, spread(sizes[rows], images), draws[rows])
            moved = images[rows] + changes
            x_adv[rows] = projected(moved, images[rows], sizes[rows], norm)
        attempts = x_adv[rows].reshape(-1, *x.shape[1:])
        new_leads, right = scores(attempts, y[rows])
        found.record(rows, attempts, -new_leads, right)
        better = rows[new_leads < leads[rows]]
        best[better] = x_adv[better]
        leads[rows] = np.minimum(leads[rows], new_leads)
    return found


def _sides(shape: tuple[int, ...], progress: float) -> tuple[int, int]:
    """Return height and width of the squares after a share of the queries."""
    _, height, width, _ = shape
    share = _FIRST_SHARE / 2 ** np.sum(progress * 10_000 > _HALVED_AFTER)
    side = max(1, round(math.sqrt(share * height * width)))
    if side <= min(height, width):
        return side, side
    if height < width:
        return height, max(1, round(share * width))
    return max(1, round(share * height)), width


def _stripes(images: Images, eps: Floats, rng: np.random.Generator) -> Floats:
    """Return vertical stripes, one pixel wide, of -eps and eps."""
    n, _, width, channels = images.shape
    return eps * rng.choice([-1.0, 1.0], (n, 1, width, channels)).astype("float32")


def _square(
    changes: Floats, sides: tuple[int, int], eps: Floats, draws: Floats
) -> Floats:
    """Move all pixels of a square by 2 eps, in each channel up or down."""
    inside, _ = _window(changes.shape, sides, draws[:, :2])
    signs = np.where(draws[:, 5:] < 0.5, -1, 1)[:, None, None]
    return changes + np.where(inside[..., None], 2 * eps * signs, 0)


def _tiles(images: Images, eps: Floats, rng: np.random.Generator) -> Floats:
    """Return a grid of five by five bumps, of length eps in L2."""
    n, height, width, channels = images.shape
    sides = max(1, height // 5), max(1, width // 5)
    rows, columns = (
        -(-size // side) for size, side in zip(images.shape[1:3], sides, strict=True)
    )
    signs = rng.choice([-1.0, 1.0], (n, rows, columns, channels))
    bump = _bumps(*sides)[0]
    changes = signs.repeat(sides[0], axis=1).repeat(sides[1], axis=2)
    changes = changes * np.tile(bump, (rows, columns))[:, :, None]
    changes = changes[:, :height, :width]
    return changes * eps / spread(lengths(changes, "l2"), changes)


def _bump(
    changes: Floats, sides: tuple[int, int], eps: Floats, draws: Floats
) -> Floats:
    """Give what two windows hold, and what is left of eps, to a bump in one of them."""
    height, width = (
        min(max(side | 1, 3), size)
        for side, size in zip(sides, changes.shape[1:3], strict=True)
    )
    inside, places = _window(changes.shape, (height, width), draws[:, :2])
    other, _ = _window(changes.shape, (height, width), draws[:, 2:4])
    inside, both = inside[..., None], (inside | other)[..., None]
    kinds = (draws[:, 4] < 0.5).astype(int)[:, None, None]
    signs = np.where(draws[:, 5:] < 0.5, -1, 1)[:, None, None]
    bumps = signs * _bumps(height, width)[(kinds, *places)][..., None]

    def squares(where: np.ndarray, axes: tuple[int, ...]) -> Floats:
        return np.sum((changes * where) ** 2, axis=axes, keepdims=True)

    old = changes / np.sqrt(squares(inside, (1, 2)) + 1e-12)
    new = inside * (bumps + old)
    new = new / np.sqrt(np.sum(new**2, axis=(1, 2), keepdims=True) + 1e-12)
    left = np.maximum(eps**2 - squares(np.array(True), (1, 2, 3)), 0)
    length = np.sqrt(left / changes.shape[-1] + squares(both, (1, 2)))
    changes = np.where(both, 0, changes) + new * length
    return changes * eps / spread(lengths(changes, "l2"), changes)


def _window(
    shape: tuple[int, ...], sides: tuple[int, int], draws: Floats
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return a window at a random place in each image.

    Returns:
        Which pixels are in it, `(n, h, w)` bool, and each pixel's row `(n, h, 1)` and
        column `(n, 1, w)` within it, clipped to the window.
    """
    offsets = []
    for axis, side in enumerate(sides):
        size = shape[1 + axis]
        starts = (draws[:, axis] * (size - side + 1)).astype(int)
        offsets.append(np.arange(size) - starts[:, None])
    (down, right), (height, width) = offsets, sides
    inside = ((down >= 0) & (down < height))[:, :, None]
    inside = inside & ((right >= 0) & (right < width))[:, None]
    places = down.clip(0, height - 1)[:, :, None], right.clip(0, width - 1)[:, None]
    return inside, places


def _bumps(height: int, width: int) -> Floats:
    """Return two bumps of L2 norm 1, `(2, h, w)`: a hill beside a valley of its shape.

    The first is divided into upper and lower half, the second into left and right one.
    """

    def halves(height: int, width: int) -> Floats:
        top = height // 2
        bump = np.concatenate([_hill(top, width), -_hill(height - top, width)])
        return bump / np.linalg.norm(bump)

    return np.stack([halves(height, width), halves(width, height).T])


def _hill(height: int, width: int) -> Floats:
    """Return a hill: the sum of 1 / k^2 over the rings k around a pixel and its own."""
    down = np.abs(np.arange(height) - height // 2)
    right = np.abs(np.arange(width) - width // 2)
    rings = np.maximum(down[:, None], right)
    count = max(height, width) // 2 + 1
    sums = np.cumsum(1 / np.arange(count, 0, -1.0) ** 2)[::-1]
    return sums[rings]
