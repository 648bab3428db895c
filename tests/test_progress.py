import threading

import pytest

from advens import progress
from advens.progress import Bars


def test_training_shows_epochs_and_whole_members(capsys):
    with Bars(show=True).training("Bagging", [3, 3, 2], lambda: [3, 1, 2]):
        pass
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Bagging: training" in captured.err
    assert "6/8" in captured.err
    assert "epochs, 2/3 members" in captured.err


def test_training_asks_again_and_again_until_it_ends(monkeypatch):
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.01)
    calls, third_call = [], threading.Event()

    def epochs_done():
        calls.append(len(calls))
        if len(calls) == 3:
            third_call.set()
        return [0]

    earlier = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), Bars().training("Bagging", [3], epochs_done):
        assert third_call.wait(timeout=60)
        raise KeyboardInterrupt
    assert set(threading.enumerate()) <= earlier


def test_attacks_show_the_number_of_images(capsys):
    with Bars(show=True).attacks("Bagging", 40) as advance:
        advance(10)
        advance(20)
    printed = capsys.readouterr().err
    assert "Bagging: attacks" in printed
    assert "30/40 images" in " ".join(printed.split())
    # A log file has one line, and no bar.
    assert printed.endswith("\n") and printed[:-1].isprintable()
    assert printed.isascii()


def test_nothing_is_shown_where_there_is_nothing_to_do(capsys):
    with Bars(show=True).training("Bagging", [], lambda: []):
        pass
    assert capsys.readouterr() == ("", "")


def test_hidden_bars_print_nothing(capsys):
    bars = Bars()
    with bars.training("Bagging", [1], lambda: [1]), bars.attacks("Bagging", 1) as add:
        add(1)
    assert capsys.readouterr() == ("", "")
