"""The sanity panel of an audit: which outcomes each check looks at."""

from typing import TYPE_CHECKING

from advens.auditing import sanity

if TYPE_CHECKING:
    from advens.auditing.result import Audit

# A probability whose logarithm is above it rounds to 1 in float32.
_CERTAIN = -6e-8


def panel(audit: "Audit") -> list[sanity.Check]:
    """Return the lines of the panel. Where a probe had no time, its line is missing."""
    sample, budget = audit.sample, audit.budget
    found = {name: probe for name, probe in audit.probes.items() if probe is not None}
    gradients = [result.attack.gradient for result in audit.results]
    white_box = audit.after(gradients.index(None))
    first, last = audit.results[0], audit.results[-1]
    checks = [sanity.numbers()]
    if last.attempted.any() or not white_box.any():
        checks.append(sanity.black_box(white_box, audit.robust))
    if "member" in gradients:
        index = gradients.index("member")
        checks.append(sanity.transfer(audit.after(index), audit.after(index + 1)))
    if "noise" in found:
        at_eps = found["noise"]["right"][found["noise"]["sizes"] == budget.eps][0]
        checks.append(sanity.noise(audit.clean[sample], at_eps, white_box[sample]))
    if "one_step" in found:
        probe = found["one_step"]
        resisting = audit.robust & first.attempted
        checks += [
            sanity.zero_gradients(probe["zero"], first.zero_gradient[resisting]),
            sanity.saturation(
                probe["framework_zero"],
                probe["zero"],
                audit.log_probs[sample].max(axis=1) > _CERTAIN,
            ),
            sanity.iterative(probe["right"], audit.after(1)[sample]),
        ]
    if "steps" in found:
        steps, most = found["steps"]["steps"], int(found["steps"]["num_steps"])
        clean = audit.clean[sample]
        half = clean & ((steps < 0) | (steps > most // 2))
        checks.append(sanity.steps(half, clean & (steps < 0)))
    whole = f"members {len(audit.members)}"
    if "twice_eps" in found and whole in found:
        checks.append(sanity.eps(found[whole]["right"], found["twice_eps"]["right"]))
    if "unbounded" in found:
        num_classes = audit.log_probs.shape[1]
        checks.append(sanity.unbounded(found["unbounded"]["right"], num_classes))
    if "randomness" in found:
        differs = found["randomness"]["differs"]
        checks.append(sanity.randomness(differs, budget.num_draws))
    halves = {
        index: member.half_precision
        for index, member in enumerate(audit.members)
        if member.half_precision
    }
    return [*checks, sanity.precision(halves)]
