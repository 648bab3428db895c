"""What programs print besides their results."""

import logging
import re
import warnings

import pytest

from advens import program
from advens.storage.store import DamagedArtefactWarning

LOG = logging.getLogger("advens.somewhere")


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_tells_what_is_done_and_where_an_error_was_raised(verbose, capsys):
    with pytest.raises(SystemExit) as exited, program.running(verbose=verbose):
        LOG.info("from the store")
        raise ValueError("bad\ninput")
    assert exited.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    told = r"\d\d:\d\d:\d\d from the store\nTraceback (?s:.*)ValueError: bad\ninput\n"
    assert re.fullmatch(f"{told if verbose else ''}error: bad input\n", err)
    # A program leaves nothing to the next one of the same process.
    LOG.info("from the store")
    assert capsys.readouterr() == ("", "")


def test_warnings_are_one_line():
    usual = warnings.formatwarning
    with program.running():
        text = warnings.formatwarning(
            "it is\ndamaged", DamagedArtefactWarning, "a.py", 3
        )
        assert text == "warning: it is damaged\n"
        text = warnings.formatwarning("overflow", RuntimeWarning, "a.py", 3)
        assert text == "warning: overflow (RuntimeWarning at a.py:3)\n"
    assert warnings.formatwarning is usual
