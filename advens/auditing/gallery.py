"""The images of an audit as pictures within a page: which ones, and how they look."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image

from advens.arrays import Floats, Images, Ints

# Of the pictures, encoded, and of the markup around those of one image, in bytes. With
# the rest of a page for ten members this is less than 3 MB.
BUDGET: Final = 2_500_000
_MARKUP: Final = 900
# Larger pictures are compressed with losses: a page has room for few others.
_MAX_LOSSLESS: Final = 64
# Of a grey image's perturbation: odd, so that there is one for no change; as few as 16
# make its file a third smaller.
_COLORS: Final = 15

FATES: Final = {
    "fell": "fell",
    "resisted": "resisted",
    "wrong": "wrong without attack",
}


@dataclass(frozen=True)
class Tile:
    """An image, its perturbation and its adversarial image.

    `original`, `perturbation` and `adversarial` are data URIs. `attack` is the name of
    the attack that broke it, empty if none did. `size` is the norm of the perturbation,
    `smallest_eps` the smallest eps found to break it, None if unknown.
    """

    index: int
    label: int
    clean: int
    predicted: int
    fate: str
    attack: str
    size: float
    smallest_eps: float | None
    original: str
    perturbation: str
    adversarial: str


def are_pictures(x: np.ndarray) -> bool:
    """Return whether inputs can be shown: `(n, h, w, 1 or 3)`, of 2 x 2 or more."""
    return x.ndim == 4 and x.shape[-1] in (1, 3) and min(x.shape[1:3]) > 1


def gallery(
    document: Mapping[str, Any], outcomes: Mapping[str, np.ndarray], x: Images
) -> list[Tile]:
    """Return as many images as a page has room for, evenly over classes and fates.

    Args:
        document: what audit.json holds: its "attacks" and its "settings".
        outcomes: the arrays of outcomes.npz: "y", "clean_ensemble", "predicted",
            "broken_by", "x_adv", "sample" and "smallest_eps".
        x: `(n, h, w, c)` in [0, 1], the audited images. Others than pictures are
            allowed; then there is no gallery.

    Returns:
        Tiles in an order of which every part is as even as the whole.
    """
    if not are_pictures(x):
        return []
    settings = document["settings"]
    x_adv = np.nan_to_num(outcomes["x_adv"])
    probed = zip(outcomes["sample"], outcomes["smallest_eps"], strict=True)
    smallest = {int(i): float(eps) for i, eps in probed if 0 < eps < np.inf}
    tiles: list[Tile] = []
    used = 0
    for i in even_order(outcomes["y"], outcomes["broken_by"]).tolist():
        delta = x_adv[i] - x[i]
        linf = settings["norm"] == "linf"
        size = np.abs(delta).max() if linf else np.linalg.norm(delta)
        # Within the Linf ball the colours of all images are on one scale.
        scale = settings["eps"] if linf else np.abs(delta).max()
        pictures = [
            _data_uri(picture)
            for picture in (_picture(x[i]), _signed(delta, scale), _picture(x_adv[i]))
        ]
        used += _MARKUP + sum(map(len, pictures))
        if used > BUDGET:
            break
        broken_by = int(outcomes["broken_by"][i])
        tiles.append(
            Tile(
                index=i,
                label=int(outcomes["y"][i]),
                clean=int(outcomes["clean_ensemble"][i]),
                predicted=int(outcomes["predicted"][i]),
                fate={-1: "resisted", -2: "wrong"}.get(broken_by, "fell"),
                attack=document["attacks"][broken_by]["name"] if broken_by >= 0 else "",
                size=float(size),
                smallest_eps=smallest.get(i),
                original=pictures[0],
                perturbation=pictures[1],
                adversarial=pictures[2],
            )
        )
    return tiles


def even_order(y: Ints, broken_by: Ints) -> Ints:
    """Return the indices of all images, in turn one of each class and fate.

    Args:
        y: `(n,)`, their classes.
        broken_by: `(n,)`, the attacks that broke them: -1 for none, -2 for images that
            are misclassified without attack.
    """
    fate = np.minimum(broken_by, 0)
    groups = pd.DataFrame({"class": y, "fate": fate}).groupby(["class", "fate"])
    return np.lexsort((-fate, y, groups.cumcount()))


def _picture(pixels: Images) -> Image.Image:
    """Return an image in [0, 1] as a picture."""
    levels = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)


def _signed(delta: Floats, scale: float) -> Image.Image:
    """Return a perturbation as a picture: its signs as colours, on a scale.

    One channel: from blue (darker) over white to red (brighter). Three channels: grey
    where nothing changes, and each channel as much brighter or darker as it becomes.
    """
    signed = np.clip(delta / (scale or 1), -1, 1)
    # Up to 0.4, as the ends of both scales are garish or nearly black.
    if delta.shape[-1] == 3:
        return Image.fromarray(np.rint(255 * (0.5 + 0.4 * signed)).astype(np.uint8))
    levels = np.rint((_COLORS // 2) * (1 + signed[..., 0]))
    picture = Image.fromarray(levels.astype(np.uint8))
    colors = colormaps["RdBu_r"](np.linspace(0.1, 0.9, _COLORS), bytes=True)[:, :3]
    picture.putpalette(colors.tobytes())
    return picture


def _data_uri(picture: Image.Image) -> str:
    """Return a picture as a data URI: PNG, or JPEG if it is large."""
    file = io.BytesIO()
    if max(picture.size) <= _MAX_LOSSLESS:
        kind = "png"
        picture.save(file, kind, optimize=True)
    else:
        kind = "jpeg"
        mode = "RGB" if picture.mode == "P" else picture.mode
        picture.convert(mode).save(file, kind, quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
