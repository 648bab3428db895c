from pathlib import Path

import advens


def test_every_module_is_imported_on_first_use():
    files = Path(advens.__file__).parent.glob("*.py")
    assert sorted(f.stem for f in files if f.stem != "__init__") == advens.__all__
    assert advens.logits.__name__ == "advens.logits"
