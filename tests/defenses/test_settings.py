import dataclasses

import numpy as np
import pytest

from advens.defenses.settings import (
    DEFAULT_RHO,
    DEFAULT_TEMPERATURE,
    AdversarialSettings,
    DistillationSettings,
)


def test_defaults_are_those_of_the_sources():
    assert DEFAULT_RHO == 0.5
    assert DEFAULT_TEMPERATURE == 10
    assert AdversarialSettings(0.1) == AdversarialSettings(
        eps=0.1, rho=0.5, box=False, labels="true", loss="exact"
    )
    assert DistillationSettings() == DistillationSettings(10, "printed")


def test_settings_can_be_neither_changed_nor_confused():
    """They are part of the address of a trained member."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        AdversarialSettings(0.1).eps = 0.2
    assert AdversarialSettings(0.1) != AdversarialSettings(0.1, box=True)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("eps", -0.1, ">= 0 and finite"),
        ("eps", np.nan, ">= 0 and finite"),
        ("eps", np.inf, ">= 0 and finite"),
        ("rho", -0.1, "in [0, 1]"),
        ("rho", 1.1, "in [0, 1]"),
        ("rho", np.nan, "in [0, 1]"),
        ("labels", "first", "one of 'true', 'predicted'"),
        ("loss", "clipped", "one of 'exact', 'logits'"),
    ],
)
def test_unsuitable_adversarial_settings(name, value, rule):
    with pytest.raises(ValueError) as error:
        AdversarialSettings(**{"eps": 0.1, name: value})
    assert str(error.value) == f"`{name}` must be {rule}. Received: {name}={value!r}"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("temperature", 0.0, "> 0 and finite"),
        ("temperature", -1.0, "> 0 and finite"),
        ("temperature", np.nan, "> 0 and finite"),
        ("temperature", np.inf, "> 0 and finite"),
        ("formula", "Papernot", "one of 'printed', 'papernot'"),
    ],
)
def test_unsuitable_distillation_settings(name, value, rule):
    with pytest.raises(ValueError) as error:
        DistillationSettings(**{name: value})
    assert str(error.value) == f"`{name}` must be {rule}. Received: {name}={value!r}"
