"""The sanity panel: signs that an accuracy under attack is too high.

Carlini et al. 2019, arXiv:1902.06705, Section 4, and Athalye et al. 2018,
arXiv:1802.00420, Section 3.1, tell which behaviour shows that an attack failed rather
than that a defence held.
"""

from typing import Literal, TypedDict

from advens.arrays import Answers
from advens.evaluation.statistics import wilson_interval

Verdict = Literal["passed", "failed", "not judged"]

# A share of images up to this one is chance: attacks are random, too. One found on few
# images counts if its 95 % interval lies above.
_TOLERANCE = 0.01


class Check(TypedDict):
    """A line of the panel.

    Attributes:
        check: its name.
        title: what should hold.
        verdict: whether it does.
        reason: why, with the numbers.
    """

    check: str
    title: str
    verdict: Verdict
    reason: str


def check(name: str, title: str, holds: bool | None, reason: str) -> Check:
    """Return a line of the panel; it is not judged where `holds` is None."""
    verdict: Verdict = "passed" if holds else "failed"
    return {
        "check": name,
        "title": title,
        "verdict": "not judged" if holds is None else verdict,
        "reason": reason,
    }


def noise(clean: Answers, noisy: Answers, white_box: Answers) -> Check:
    """Judge whether gradients find more than noise of the same size.

    Args:
        clean: `(n,)` bool, who is right without attack.
        noisy: `(n,)` bool, who is right under noise.
        white_box: `(n,)` bool, who is right under all attacks that follow gradients.
    """
    only = clean & ~noisy & white_box
    return check(
        "noise",
        "Random noise is weaker than gradients",
        not _is_clear(only),
        f"Noise leaves {share(noisy)}, gradients leave {share(white_box)}; "
        f"{share(only)} of the images fall to noise alone.",
    )


def transfer(direct: Answers, with_members: Answers) -> Check:
    """Judge whether the ensemble's own gradients find what its members' find.

    Args:
        direct: `(n,)` bool, who resists the attacks through the ensemble's gradients.
        with_members: `(n,)` bool, who resists those through single members, too.
    """
    only = direct & ~with_members
    return check(
        "transfer",
        "No image falls to transfer alone",
        not _is_clear(only),
        f"{share(only)} of the images resist the attacks on the ensemble, and fall "
        "to an attack on a single member.",
    )


def black_box(white_box: Answers, robust: Answers) -> Check:
    """Judge whether an attack without gradients finds what those with them did not.

    Args:
        white_box: `(n,)` bool, who resists all attacks that follow gradients.
        robust: `(n,)` bool, who resists Square, too.
    """
    only = white_box & ~robust
    return check(
        "black_box",
        "The black box is not stronger than the white box",
        not _is_clear(only),
        f"{share(only)} of the images resist every gradient and fall to Square, "
        "which sees answers only.",
    )


def eps(at_eps: Answers, at_twice: Answers) -> Check:
    """Judge whether accuracy falls as eps grows.

    Args:
        at_eps: `(n,)` bool, who is right at eps.
        at_twice: `(n,)` bool, who is right at 2 eps, found without the former.
    """
    rise = float(at_twice.mean() - at_eps.mean())
    return check(
        "eps",
        "Accuracy falls as eps grows",
        rise <= _TOLERANCE,
        f"It is {share(at_eps)} at eps and {share(at_twice)} at twice eps.",
    )


def unbounded(right: Answers, num_classes: int) -> Check:
    """Judge whether accuracy goes to chance where every image can become any other.

    Args:
        right: `(n,)` bool, who is right under an attack without bound.
        num_classes: k.
    """
    chance = 1 / num_classes
    return check(
        "unbounded",
        "Without bound, accuracy goes to chance",
        bool(right.mean() <= chance + 5 * _TOLERANCE),
        f"Where an attack may turn every image into a grey one, accuracy is "
        f"{share(right)}; chance is {percent(chance)}.",
    )


def steps(usual: Answers, twice: Answers) -> Check:
    """Judge whether the attacks have converged.

    Args:
        usual: `(n,)` bool, who resists APGD with the suite's number of steps.
        twice: `(n,)` bool, who resists it with twice as many.
    """
    gain = float(usual.mean() - twice.mean())
    return check(
        "steps",
        "Twice the steps change little",
        gain <= 2 * _TOLERANCE,
        f"APGD leaves {share(usual)}, and {share(twice)} with twice the steps.",
    )


def iterative(one_step: Answers, many: Answers) -> Check:
    """Judge whether many steps are at least as strong as one.

    Args:
        one_step: `(n,)` bool, who is right after FGSM.
        many: `(n,)` bool, who resists APGD.
    """
    return check(
        "iterative",
        "Many steps are not weaker than one",
        bool(many.mean() <= one_step.mean() + _TOLERANCE),
        f"One step leaves {share(one_step)}, many leave {share(many)}.",
    )


def zero_gradients(at_image: Answers, resisting: Answers) -> Check:
    """Judge whether attacks had a direction to follow.

    Args:
        at_image: `(n,)` bool, whose gradient is exactly zero at the image itself.
        resisting: `(k,)` bool, of the images that resist all attacks, whose gradient
            was zero at some step of the first.
    """
    return check(
        "zero_gradients",
        "Gradients are not zero",
        not (_is_clear(at_image) or _is_clear(resisting)),
        f"They are exactly zero at {percent(share_of(at_image))} of the images, and "
        f"were at some step for {percent(share_of(resisting))} of those that resist. "
        "There, an attack has nothing to follow.",
    )


def saturation(
    framework_zero: Answers, exact_zero: Answers, saturated: Answers
) -> Check:
    """Tell whether a usual gradient vanishes where the exact one does not.

    Args:
        framework_zero: `(n,)` bool, whose gradient by the framework is zero.
        exact_zero: `(n,)` bool, whose exact gradient is zero.
        saturated: `(n,)` bool, who is so certain that a probability rounds to 1.
    """
    hidden = share_of(framework_zero & ~exact_zero)
    text = f"A probability rounds to 1 on {percent(share_of(saturated))} of the images"
    if hidden > _TOLERANCE:
        text += (
            f", and the framework's own gradient is exactly zero on {percent(hidden)}: "
            "these answers mask gradients, and a tool that follows them reports too "
            "high an accuracy. The exact gradients that this audit follows do not "
            "vanish there."
        )
    else:
        text += "; gradients do not vanish there."
    return check("saturation", "No gradient is lost to a saturated softmax", True, text)


def randomness(differs: Answers, num_draws: int) -> Check:
    """Judge whether the ensemble gives one answer to one image.

    Args:
        differs: `(n,)` bool, whose probabilities differ between two calls.
        num_draws: how many draws a gradient was averaged over.
    """
    differing = share_of(differs)
    advice = (
        f"Each gradient was a mean over {num_draws} draws; an image counts as broken "
        "if a single draw was fooled."
    )
    if num_draws == 1:
        advice = "Attack its expectation: audit(..., num_draws=10) or more."
    text = "Two calls give the same probabilities."
    if differing:
        text = f"Two calls differ on {percent(differing)} of the images. {advice}"
    return check(
        "randomness",
        "Answers are not random, or the attacks average over them",
        not differing or num_draws > 1,
        text,
    )


def precision(members: dict[int, str]) -> Check:
    """Tell which members compute in half precision.

    Args:
        members: their indices, and in which precision.
    """
    text = "All members compute in float32 or better."
    if members:
        names = ", ".join(f"members[{i}] in {dtype}" for i, dtype in members.items())
        text = (
            f"{names}: a small change of an image may be lost to rounding before it "
            "reaches an answer. Gradients are summed in float32."
        )
    title = "Members compute in float32"
    return check("precision", title, None if members else True, text)


def numbers() -> Check:
    """Tell that no gradient was NaN."""
    return check(
        "numbers",
        "Losses and gradients are numbers",
        True,
        "None was NaN: that would have ended the audit with an error.",
    )


def _is_clear(flags: Answers) -> bool:
    """Return whether a share is above the tolerance, and not by chance."""
    if not flags.any():
        return False
    return wilson_interval(share_of(flags), len(flags))[0] > _TOLERANCE


def share(right: Answers) -> str:
    """Return an accuracy as text."""
    return percent(share_of(right))


def share_of(flags: Answers) -> float:
    """Return the share of True, 0 for no images."""
    return float(flags.mean()) if flags.size else 0.0


def percent(value: float) -> str:
    """Return a share as text, such as "12.3 %"."""
    return f"{100 * value:.1f} %"
