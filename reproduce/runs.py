"""The run that the flags of a script describe, and where its files belong."""

import atexit
import dataclasses
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from advens import datasets, program
from advens.strauss2017.readings import DEFAULT, READINGS
from advens.strauss2017.settings import Settings, settings_of
from script import FLAGS

if TYPE_CHECKING:
    from advens.models.architecture import OwnNetwork
    from advens.strauss2017.run import Run

# The values of flags, by name: whatever the parser of a flag returns.
Values: TypeAlias = dict[str, Any]

_LOG: Final = logging.getLogger("advens.reproduce")

# A flag that sets an attribute of `Settings` is called like the attribute.
_SETTINGS: Final = [field.name for field in dataclasses.fields(Settings)]
_MODULES: Final = {path.stem for path in Path(__file__).parent.glob("*.py")}


def all_values() -> Values:
    """Return the values of all flags of the scripts, without those of any library."""
    modules = FLAGS.flags_by_module_dict()
    # The script that was started is known by its path.
    ours = [name for name in modules if name in _MODULES or name == sys.argv[0]]
    return {flag.name: flag.value for name in ours for flag in modules[name]}


def directory(flag: str, *dataset_names: str) -> Path:
    """Return the directory of `out_dir` or `figures_dir`, see `reading`."""
    path = Path(str(FLAGS[flag].value))
    given = not FLAGS[flag].using_default_value
    chosen, default = READINGS[FLAGS.reading], READINGS[DEFAULT]
    names = set(dataset_names or [FLAGS.dataset])
    # One that is not the paper's may be read like any of the paper's.
    usual = all(chosen[name] == default[name] for name in names & {*default} or default)
    return path if given or usual else path / FLAGS.reading


def _own_network(values: Values, dataset: datasets.Dataset) -> "OwnNetwork | None":
    from advens.models.own_network import own_network

    if values["network"] is None:
        return None
    if values["logits"] is not None:
        raise ValueError(
            "`logits` has no effect on a network of your own. Received: "
            f"network={values['network']}, logits={values['logits']}"
        )
    return own_network(values["network"], dataset.input_shape, dataset.num_classes)


def make_run(**overrides: Any) -> "Run":
    """Return the run that the flags describe. Bad values are found here.

    Args:
        **overrides: values that take the place of the flags' values, by name.
    """
    from advens import backend, process, provenance
    from advens.cluster.client import Cluster
    from advens.progress import Bars
    from advens.storage.store import Store
    from advens.strauss2017.run import Run

    values = all_values() | overrides

    def chosen(*names: str) -> Values:
        return {name: values[name] for name in names if values.get(name) is not None}

    dataset = datasets.load(values["dataset"], data_dir=values["data_dir"])
    of_dataset = settings_of(dataset, _own_network(values, dataset))
    paper_name = str(of_dataset["dataset"])
    reading = READINGS[values["reading"]][paper_name]
    settings = reading.training(**chosen(*_SETTINGS) | of_dataset)
    labels = {
        name: values[f"{name}_labels"] or usual
        for name, usual in reading.labels.items()
    }
    attacks = reading.attacks(
        paper_name,
        **chosen("box", "fgsm_eps", "bim_eps", "bim_step_size", "bim_num_steps"),
    )
    program.check_writable("out_dir", overrides.get("out_dir") or directory("out_dir"))
    export_dir = Path(values["export"]) if values.get("export") else None
    if export_dir:
        program.check_writable("export", export_dir)
    process.keep_memory()
    # As in the processes that train, on this machine and on a cluster.
    backend.make_deterministic()
    backend.use_full_float32()
    store = Store(values["work_dir"])
    if values["import"]:
        store.take_in(values["import"])
    cluster = None
    if values["cluster"]:
        cluster = Cluster(values["cluster"], store)
        atexit.register(cluster.close)
    run = Run(
        dataset=dataset.subset(values["train_images"], values["test_images"]),
        settings=settings,
        attacks=attacks,
        reading=reading,
        labels=labels,
        store=store,
        bars=Bars(show=not FLAGS.quiet),
        cluster=cluster,
        export_dir=export_dir,
        **chosen("columns", "num_members", "seed", "n_jobs", "stack", "minutes"),
    )
    provenance.log_hardware(backend=backend.name(), devices=backend.devices())
    _log_settings(run)
    return run


def _log_settings(run: "Run") -> None:
    """Log what determines the numbers of a run, and where they are kept."""
    images = f"{len(run.dataset.y_train)} training, {len(run.dataset.y_test)} test"
    _LOG.info("images of %s: %s", run.dataset.name, images)
    settings = {
        **dataclasses.asdict(run.settings),
        **{f"{name}_labels": labels for name, labels in run.labels.items()},
        **{name: getattr(run, name) for name in ("num_members", "seed", "n_jobs")},
    }
    _LOG.info("settings: %s", _listed(settings))
    for attack in run.attacks:
        _LOG.info("attack: %s", _listed(dataclasses.asdict(attack)))
    _LOG.info("store: %s", run.store.root)


def _listed(values: Values) -> str:
    return ", ".join(f"{k}={v}" for k, v in values.items() if v is not None)
