import pytest

from advens.attacks.threat import Attack
from advens.strauss2017 import constants
from advens.strauss2017.settings import paper_attacks


def test_paper_attacks():
    assert paper_attacks("cifar10", box=True, bim_num_steps=3) == [
        Attack("FGSM", eps=0.03, step_size=0.03, num_steps=1, box=True),
        Attack("BIM", eps=0.02, step_size=0.0025, num_steps=3, box=True),
    ]


def test_changed_settings():
    fgsm, bim = paper_attacks("mnist", fgsm_eps=0.1, bim_eps=0.4, bim_step_size=0)
    # FGSM is one step of size eps.
    assert (fgsm.eps, fgsm.step_size, fgsm.num_steps) == (0.1, 0.1, 1)
    assert (bim.eps, bim.step_size, bim.num_steps) == (0.4, 0, 8)
    assert not fgsm.box
    assert not bim.box


@pytest.mark.parametrize("dataset", constants.ATTACKS)
def test_bim_can_just_reach_the_ball(dataset):
    bim = paper_attacks(dataset)[1]
    assert bim.num_steps * bim.step_size == pytest.approx(bim.eps, rel=1e-12)
