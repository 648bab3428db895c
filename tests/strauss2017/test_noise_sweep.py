import pytest
from numpy.testing import assert_array_equal

from advens.evaluation.outcomes import count_lost_classes
from advens.strauss2017.noise_sweep import measure_noise
from advens.training import members as training


def test_single_networks_without_attack(tmp_path, make_run):
    run = make_run(tmp_path, num_members=2)
    cells = measure_noise(run, [0.3, 0.0])
    assert list(cells) == [0.3, 0.0]
    # Those of Gauss Noise in Table 2, which has this noise on digits, and of Rand. Ini.
    groups = {0.3: run.members("gauss_noise"), 0.0: run.members("rand_ini")}
    x, y = run.dataset.x_test, run.dataset.y_test
    lost_classes = []
    for noise_std, members in groups.items():
        cell = cells[noise_std]
        ensemble = training.load_ensemble(members, run.store)
        predicted = [member.predict(x, verbose=0) for member in ensemble.members]
        assert_array_equal(cell.correct, [p.argmax(axis=1) == y for p in predicted])
        assert cell.zero_gradient is None
        assert (cell.dataset, cell.attack) == ("digits", "FGSM")
        assert (cell.row, cell.column) == ("gauss_noise", "no_attack_single")
        lost_classes += count_lost_classes(cell.correct, y)
    assert (cells[0.3].correct != cells[0.0].correct).any()
    assert run.lost_classes == {"gauss_noise": lost_classes}
    assert run.restarts.keys() == {"gauss_noise"}
    # The run's own noise stays as it is.
    assert run.settings.noise_std == 0.3


def test_a_second_run_does_nothing(tmp_path, make_run, save_untrained, request):
    run = make_run(tmp_path, num_members=1)
    save_untrained(run, run.members("gauss_noise"))
    [cell] = measure_noise(run, [0.3]).values()
    request.getfixturevalue("nothing_to_do")
    [again] = measure_noise(make_run(tmp_path, num_members=1), [0.3]).values()
    assert_array_equal(cell.correct, again.correct)


@pytest.mark.parametrize(
    ("noise_stds", "message"),
    [
        ([], "`noise_stds` must be one or more numbers. Received: none"),
        ([0.1, -1], "`noise_std` must be >= 0.* Received: noise_std=-1"),
        ([float("nan")], "`noise_std` must be >= 0.* Received: noise_std=nan"),
    ],
)
def test_unsuitable_noises_are_found_before_any_training(
    tmp_path, make_run, monkeypatch, noise_stds, message
):
    run = make_run(tmp_path)
    monkeypatch.setattr(training, "fit_members", None)
    with pytest.raises(ValueError, match=message):
        measure_noise(run, noise_stds)
