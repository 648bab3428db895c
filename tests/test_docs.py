"""The examples in docs/ run."""

import re
from pathlib import Path

import keras
import pytest

import advens
from advens import Ensemble, datasets, load_pretrained

DOCS = Path(__file__).parents[1] / "docs"


def examples(page):
    """Return the Python blocks of a page, each at the line where it stands there."""
    text = (DOCS / page).read_text()
    return [
        compile("\n" * text[: block.start(1)].count("\n") + block[1], page, "exec")
        for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)
        # At full effort the audit takes too long.
        if "audit(ensemble, x, y, eps=8 / 255)" not in block[1]
    ]


def test_api():
    names = {}
    for example in examples("api.md"):
        exec(example, names)
    assert names["attacked"].ensemble.mean() < names["clean"].ensemble.mean()


def test_attack():
    digits, trained = datasets.load("digits"), load_pretrained("digits_rand_ini")
    model_a, model_b, model_c = trained.members
    names = {
        **{"model_a": model_a, "model_b": model_b, "model_c": model_c},
        **{"other_ensemble": trained.first(2), "model": model_a},
        **{"teacher": model_b, "student": keras.models.clone_model(model_b)},
        **{"x": digits.x_test[:20], "y": digits.y_test[:20]},
    }
    for example in examples("attack.md"):
        exec(example, names)
    assert isinstance(names["ensemble"], Ensemble)


@pytest.mark.parametrize("name", advens.__all__)
def test_each_public_name_has_its_place(name):
    assert re.search(rf"^::: advens\.{name}$", (DOCS / "api.md").read_text(), re.M)
