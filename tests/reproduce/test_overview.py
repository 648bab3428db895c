import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import overview
import table2

REDUCED = ("--num_members=2", "--epochs=1", "--train_images=64", "--test_images=20")


def test_bars_of_table_2_and_of_an_audit(call, monkeypatch):
    audited = []

    def audit(ensemble, x, y, **settings):
        audited.append((len(ensemble), len(x), settings["eps"]))
        return types.SimpleNamespace(robust=np.arange(len(x)) < len(ensemble))

    monkeypatch.setattr("advens.strauss2017.overview.audit", audit)
    call(table2.table2, *REDUCED, "--methods=rand_ini", "--bim_eps=0.2")
    call(overview.overview, *REDUCED, "--bim_eps=0.2")
    assert audited == [(1, 20, 0.2), (2, 20, 0.2)]

    bars = pd.read_csv("results/overview_digits.csv")
    bars = bars.set_index(["judged", "attack"])["accuracy"]
    table = pd.read_csv("results/table2_digits_cells.csv")
    table = table[table["attack"] == "BIM"].set_index("column")["accuracy"]
    for attack, column in (("none", "no_attack"), ("BIM", "grad1")):
        of_table = table[f"{column}_ensemble"]
        assert bars["ensemble", attack] == pytest.approx(of_table, abs=1e-9)
    assert bars["single", "audit"] == pytest.approx(1 / 20)
    assert bars["ensemble", "audit"] == pytest.approx(2 / 20)
    for end in (".png", ".pdf", "_caption.tex"):
        assert Path(f"figures/overview_digits{end}").exists()
    caption = Path("figures/overview_digits_caption.tex").read_text()
    assert "20 test images, ensembles of 2 members" in caption
