import pytest

from advens.models.architecture import Architecture


def architecture(**changes):
    settings = {
        "input_shape": (28, 28, 1),
        "blocks": ((4, 4),),
        "block_dropout": (0.2,),
        "units": 8,
        "padding": "valid",
    }
    return Architecture(**{**settings, **changes})


def test_equal_architectures_are_one_key():
    assert len({architecture(), architecture(), architecture(units=9)}) == 2


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"logits": "probs"},
            r"`logits` must be one of 'relu', 'linear', 'dense'. "
            "Received: logits='probs'$",
        ),
        ({"block_dropout": (0.2, 0.3)}, "Received: 2 rates for 1 blocks"),
        ({"block_dropout": ()}, "Received: 0 rates for 1 blocks"),
    ],
)
def test_impossible_architecture(changes, rule):
    with pytest.raises(ValueError, match=rule):
        architecture(**changes)
