import ast
import inspect
import subprocess
import sys

import pytest

import advens


def test_public_names_are_those_of_their_modules():
    assert sorted(advens._MODULES) == advens.__all__
    for name, module in advens._MODULES.items():
        public = getattr(advens, name)
        assert public.__name__ == name
        assert inspect.getmodule(public).__name__ == f"advens.{module}"
        assert name in dir(advens)


def test_type_checkers_see_the_public_names():
    imports = {}
    for node in ast.walk(ast.parse(inspect.getsource(advens))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("advens."):
            imports |= dict.fromkeys((name.name for name in node.names), node.module)
    assert imports == {name: f"advens.{at}" for name, at in advens._MODULES.items()}


def test_importing_advens_needs_no_backend():
    code = (
        "import sys, advens; from advens import Attack, Outcomes, Threat, worst_case; "
        "print({'keras', 'tensorflow', 'jax'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "set()"


def test_unknown_name():
    with pytest.raises(AttributeError, match="'advens' has no attribute 'ensemble'"):
        advens.ensemble  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Ensembles'"):
        from advens import Ensembles  # noqa: F401
