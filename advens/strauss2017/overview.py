"""What attacks leave of one network and of an ensemble: the first picture of README.

The paper asks whether an ensemble withstands attacks better than a single network. Here
this is asked once with the paper's BIM and once with an audit, which attacks as hard as
this package can.
"""

from typing import Final

import numpy as np

from advens.attacks.threat import Threat
from advens.auditing.audit import audit
from advens.strauss2017.cells import Cell
from advens.strauss2017.columns import PAPER_LOSS
from advens.strauss2017.run import Run

ROW: Final = "rand_ini"
ATTACKS: Final = ("none", "BIM", "audit")
# Of Square, which found nothing after the gradients on any ensemble of docs/audit.md.
_NUM_QUERIES: Final = 1000


def measure_overview(run: Run) -> list[Cell]:
    """Train Rand. Ini., and attack its first network and the whole ensemble.

    Args:
        run: its settings; the audit has the `eps` of its BIM.

    Returns:
        For each of `ATTACKS` the answers of `"single"`, the first network, and of
        `"ensemble"`, which BIM attacks through each member's gradient in turn (Grad. 1,
        Section 3). The audit follows all gradients of what it attacks.
    """
    members = run.members(ROW)
    run.train(ROW, members)
    (bim,) = (attack for attack in run.attacks if attack.name == "BIM")
    x, y = run.dataset.x_test, run.dataset.y_test
    cells = []
    for judged, some in (("single", members[:1]), ("ensemble", members)):
        threats = [
            Threat("member", i, run.labels["bim_grad1"], PAPER_LOSS)
            for i in range(len(some))
        ]
        by_threat = run.attack(ROW, some, {None: []} | dict.fromkeys(threats, [bim]))
        ensemble = run.ensembles.load(some, run.store)
        audited = audit(
            ensemble,
            x,
            y,
            eps=bim.eps,
            num_queries=_NUM_QUERIES,
            num_probes=1,  # only the accuracy is drawn
            store=run.store,
            cluster=run.cluster,
            bars=run.bars,
        )
        answers = (
            [by_threat[None]["none"].ensemble],
            [by_threat[threat]["BIM"].ensemble for threat in threats],
            [audited.robust],
        )
        cells += [
            Cell(run.dataset.name, attack, ROW, judged, np.stack(correct))
            for attack, correct in zip(ATTACKS, answers, strict=True)
        ]
    return cells
