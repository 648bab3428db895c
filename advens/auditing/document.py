"""All numbers of an audit, as JSON can hold them: `audit.json`."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from advens import __version__, provenance
from advens.auditing import explain, sanity
from advens.auditing.explain import accuracy

if TYPE_CHECKING:
    from advens.auditing.result import Audit

# Radii at which the curve of accuracy is drawn.
_POINTS = 33


def document(audit: "Audit") -> dict[str, Any]:
    """Return all numbers, settings and versions, as JSON can hold them."""
    checks = audit.panel()
    failed = [check for check in checks if check["verdict"] == "failed"]
    done = all(result.done for result in audit.results)
    return {
        "advens": __version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"
        ),
        "command": None,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(backend=audit.backend, devices=audit.devices),
        "seconds": audit.seconds,
        "settings": {
            **dataclasses.asdict(audit.budget),
            "votes": audit.votes,
            "num_images": len(audit.y),
            "num_probes": len(audit.sample),
            "num_classes": audit.log_probs.shape[1],
            "image_shape": list(audit.image_shape),
            "time_budget": audit.time_budget,
        },
        "members": _members(audit),
        "data": {"file": None, "sha256": audit.checksum},
        "clean_accuracy": accuracy(audit.clean),
        "robust_accuracy": accuracy(audit.robust),
        # An accuracy of 0 cannot be too high.
        "trusted": not audit.robust.any() or (not failed and done),
        "verdict": _verdict(audit, failed),
        "attacks": _attacks(audit),
        "panel": checks,
        "curves": _curves(audit),
        "why": _why(audit),
    }


def _members(audit: "Audit") -> list[dict[str, Any]]:
    return [
        {
            "name": member.name,
            "file": None,
            "sha256": member.sha256,
            "parameters": member.parameters,
            "accuracy": accuracy(audit.classes[:, i] == audit.y),
            "robust_accuracy": accuracy(audit.classes_adv[:, i] == audit.y),
        }
        for i, member in enumerate(audit.members)
    ]


def _attacks(audit: "Audit") -> list[dict[str, Any]]:
    return [
        {
            **dataclasses.asdict(result.attack),
            "attempted": int(result.attempted.sum()),
            "broken": int(result.broken.sum()),
            "accuracy_after": accuracy(audit.after(index + 1)),
            "zero_gradient": sanity.share_of(result.zero_gradient[result.attempted]),
            "seconds": result.seconds,
            "done": result.done,
        }
        for index, result in enumerate(audit.results)
    ]


def _verdict(audit: "Audit", failed: Sequence[sanity.Check]) -> str:
    robust = sanity.percent(float(audit.robust.mean()))
    clean = sanity.percent(float(audit.clean.mean()))
    norm = {"linf": "L-infinity", "l2": "L2"}[audit.budget.norm]
    text = (
        f"The ensemble is right on {clean} of the images, and on {robust} under "
        f"every attack within {norm} distance {audit.budget.eps:g}."
    )
    if not audit.robust.any():
        return text
    if failed:
        reasons = " ".join(check["reason"] for check in failed)
        text += f" This number overestimates robustness, because: {reasons}"
    if not all(result.done for result in audit.results):
        text += " Time ran out before all attacks had run: they may leave less."
    return text


def _curves(audit: "Audit") -> dict[str, Any]:
    return {"eps": _eps_curve(audit), "steps": _steps_curve(audit)} | {
        "members": [
            {
                "num_members": int(name.split()[1]),
                "clean": accuracy(found["clean"]),
                "accuracy": accuracy(found["right"]),
            }
            for name, found in audit.probes.items()
            if name.startswith("members") and found is not None
        ]
    }


def _eps_curve(audit: "Audit") -> list[dict[str, Any]]:
    found, noise = audit.probes["eps"], audit.probes["noise"]
    if found is None:
        return []
    noises = {}
    if noise is not None:
        noises = dict(zip(noise["sizes"].tolist(), noise["right"], strict=True))
    smallest = audit.smallest_eps
    largest = float(found["largest"])
    radii = {*np.linspace(0, largest, _POINTS).tolist(), audit.budget.eps, *noises}
    return [
        {
            "eps": radius,
            "accuracy": accuracy(smallest > radius),
            "noise": accuracy(noises[radius]) if radius in noises else None,
        }
        for radius in sorted(radii)
        if radius <= largest
    ]


def _steps_curve(audit: "Audit") -> list[dict[str, Any]]:
    found = audit.probes["steps"]
    if found is None:
        return []
    steps, clean = found["steps"], audit.clean[audit.sample]
    last = int(found["num_steps"])
    counts = sorted({0, *(2**i for i in range(last.bit_length())), last})
    return [
        {
            "num_steps": count,
            "accuracy": accuracy(clean & ((steps < 0) | (steps > count))),
        }
        for count in counts
    ]


def _why(audit: "Audit") -> dict[str, Any]:
    transfer, signs = audit.probes.get("transfer"), audit.probes.get("signs")
    agreement = None
    if signs is not None:
        agreement = [
            [None if np.isnan(share) else share for share in row]
            for row in signs["agreement"].tolist()
        ]
    right = (audit.classes == audit.y[:, None]).T
    calibration = {
        "clean": explain.calibration(np.exp(audit.log_probs), audit.y),
        "attacked": explain.calibration(np.exp(audit.log_probs_adv), audit.y),
    }
    return {
        "transfer": transfer and explain.transfer(transfer["right"]),
        "error_agreement": explain.error_agreement(right),
        "sign_agreement": agreement,
        "calibration": calibration,
        "classes": explain.classes(
            audit.y,
            audit.clean,
            audit.robust,
            audit.log_probs_adv.argmax(axis=1),
            num_classes=audit.log_probs.shape[1],
        ),
    }
