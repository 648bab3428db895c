import numpy as np
import pytest

from advens.attacks.threat import Attack, Threat


@pytest.mark.parametrize("name", ["eps", "step_size", "num_steps"])
@pytest.mark.parametrize("value", [-1, -0.1, np.nan])
def test_settings_out_of_range(name, value):
    settings = {"eps": 0.2, "step_size": 0.1, "num_steps": 2, name: value}
    rule = "an integer >= 1" if name == "num_steps" else ">= 0 and finite"
    with pytest.raises(ValueError) as error:
        Attack("BIM", **settings)
    assert str(error.value) == f"`{name}` must be {rule}. Received: {name}={value}"


@pytest.mark.parametrize("value", [0, 8.0])
def test_steps_are_whole_and_at_least_one(value):
    with pytest.raises(ValueError, match=f"must be an integer >= 1. .*={value}$"):
        Attack("BIM", 0.2, 0.1, value)


@pytest.mark.parametrize("value", [0, 2.0])
def test_draws_are_whole_and_at_least_one(value):
    with pytest.raises(ValueError, match=f"must be an integer >= 1. .*={value}$"):
        Threat("ensemble", num_draws=value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("both",), "`gradient` must be one of .*'both'"),
        (("member",), "`index` must be given for gradient='member'"),
        (("ensemble", 0), "`index` must be given for gradient='member'"),
        (("ensemble", None, "wrong"), "`labels` must be one of .*'wrong'"),
        (("ensemble", None, "true", "hinge"), "`loss` must be one of .*'hinge'"),
        (("ensemble", None, "true", "exact", "int8"), "`compute` must be .*'int8'"),
    ],
)
def test_bad_threats(arguments, message):
    with pytest.raises(ValueError, match=message):
        Threat(*arguments)


def test_equal_settings_are_one_key():
    """A compiled attack is looked up by the settings of the attack and the threat."""
    assert len({Threat("ensemble"), Threat("ensemble"), Threat("mean_member")}) == 2
    assert len({Attack("BIM", 0.2, 0.1, 2) for _ in range(2)}) == 1
