import io

import numpy as np
from numpy.testing import assert_allclose
from rich.console import Console

from advens.strauss2017.cells import Cell
from advens.strauss2017.reporting import noise_report


def sweep(dataset="mnist"):
    """Return cells of which .9900 is closest to the paper's .9898."""
    accuracies = {0.1: 0.9905, 0.3: 0.99, 0.5: 0.9889}
    return {
        noise_std: Cell(
            dataset,
            "FGSM",
            "gauss_noise",
            "no_attack_single",
            np.arange(10_000)[None] < round(accuracy * 10_000),
        )
        for noise_std, accuracy in accuracies.items()
    }


def test_the_frame_marks_the_noise_that_is_closest_to_the_paper():
    frame = noise_report.noise_frame(sweep())
    assert list(frame["noise_std"]) == [0.1, 0.3, 0.5]
    assert list(frame["closest"]) == [False, True, False]
    assert_allclose(frame["difference"], [0.0007, 0.0002, -0.0009], atol=1e-9)
    assert not noise_report.noise_frame(sweep("digits"))["closest"].any()


def test_packed_cells_have_names_that_differ():
    cells = noise_report.noise_cells_to_pack(sweep())
    names = [(cell.attack, cell.column) for cell in cells]
    assert names == [("none", f"noise_std={value}") for value in ("0.1", "0.3", "0.5")]
    assert cells[1].correct is not None


def test_terminal():
    for dataset, shown in (("mnist", "+0.0002"), ("digits", "–")):
        frame = noise_report.noise_frame(sweep(dataset))
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(noise_report.terminal_noise(frame, title="T"))
        [line] = [s for s in console.export_text().splitlines() if "0.9900" in s]
        assert shown in line
        assert ("closest" in line) == (dataset == "mnist")
