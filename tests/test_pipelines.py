import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest

from advens.pipelines import (
    batches,
    bootstrap_indices,
    epoch_rows,
    gaussian_noise,
    member_seeds,
    weights_seed,
)

SIZE, SEED = 11, 2**32 - 1
X = np.random.default_rng(0).random((SIZE, 2, 3, 1), np.float32)
Y = np.arange(SIZE)


def collect(x=X, y=Y, *, seed=SEED, batch_size=4, epochs=3, first=0, **options):
    order = [epoch_rows(seed, e, SIZE, **options) for e in range(first, epochs)]
    found = batches(x, y, np.stack(order), batch_size=batch_size)
    return [(np.asarray(x), np.asarray(y)) for x, y in found]


def by_epoch(found, steps=3):
    """Return the labels of each epoch: the numbers of its rows."""
    labels = [y for _, y in found]
    return [
        np.concatenate(labels[start : start + steps])
        for start in range(0, len(labels), steps)
    ]


def assert_same_batches(got, want):
    assert len(got) == len(want) > 0
    for (x, y), (want_x, want_y) in zip(got, want, strict=True):
        assert_array_equal(x, want_x)
        assert_array_equal(y, want_y)


def test_member_seeds():
    seeds = member_seeds(7, 10)
    assert all(type(seed) is int and seed >= 0 for seed in seeds)
    for num_members in range(11):
        assert member_seeds(7, num_members) == seeds[:num_members]
    everyone = {seed for run in range(20) for seed in member_seeds(run, 10)}
    assert len(everyone) == 200


def test_students_and_attempts_have_weights_of_their_own():
    def draw():
        settings = itertools.product(member_seeds(7, 10), (False, True), range(3))
        return [weights_seed(seed, student=s, attempt=a) for seed, s, a in settings]

    seeds = draw()
    assert seeds[::6] == [weights_seed(seed) for seed in member_seeds(7, 10)]
    assert seeds[::6] == member_seeds(7, 10)
    assert seeds == draw()
    assert len(set(seeds)) == 60
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("size", [1_437, 50_000, 60_000])
def test_bootstrap_holds_63_percent_of_the_rows(size):
    runs = 20
    rows = np.array([bootstrap_indices(seed, size) for seed in range(runs)])
    assert rows.shape == (runs, size)
    assert rows.dtype == np.int64
    assert rows.min() >= 0
    assert rows.max() < size
    # A row is left out with probability p, two given rows with probability q.
    p, q = (1 - 1 / size) ** size, (1 - 2 / size) ** size
    std = np.sqrt(p / size + (1 - 1 / size) * q - p**2)
    assert_allclose(1 - p, 0.632, rtol=0, atol=5e-4)
    distinct = [len(np.unique(row)) / size for row in rows]
    assert_allclose(distinct, 1 - p, rtol=0, atol=4 * std)
    assert_allclose(np.mean(distinct), 1 - p, rtol=0, atol=4 * std / np.sqrt(runs))
    # All rows are as likely: the mean of n uniform numbers.
    atol = 4 * np.sqrt(1 / 12 / size / runs)
    assert_allclose(rows.mean() / (size - 1), 0.5, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "draw",
    [
        bootstrap_indices,
        lambda seed, size: gaussian_noise(seed, (size, 2), noise_std=0.1),
        lambda seed, size: epoch_rows(seed, 0, size),
    ],
)
def test_draws_are_functions_of_seed_and_size(draw):
    np.random.seed(1)
    first = draw(SEED, 500)
    before = np.random.get_state()[1].copy()
    np.random.seed(2)
    assert_array_equal(draw(SEED, 500), first)
    np.random.seed(1)
    assert_array_equal(np.random.get_state()[1], before)
    assert (draw(SEED - 1, 500) != first).any()
    assert len(draw(SEED, 499)) == 499


def test_purposes_do_not_share_random_numbers(monkeypatch):
    default_rng, first_numbers = np.random.default_rng, []

    def spy(key):
        first_numbers.append(default_rng(key).integers(2**63))
        return default_rng(key)

    monkeypatch.setattr(np.random, "default_rng", spy)
    bootstrap_indices(SEED, 5)
    gaussian_noise(SEED, (5,), noise_std=1.0)
    weights_seed(SEED, student=True)
    weights_seed(SEED, attempt=1)
    for epoch in range(5):
        epoch_rows(SEED, epoch, 5)
    assert len(set(first_numbers)) == 9


def test_noise_is_normal_and_not_clipped():
    noise_std, shape = 0.3, (500, 28, 28, 1)
    noise = gaussian_noise(SEED, shape, noise_std=noise_std)
    n = noise.size
    assert noise.shape == shape
    assert noise.dtype == np.float32
    wide = noise.astype(np.float64)
    assert_allclose(wide.mean(), 0, rtol=0, atol=4 * noise_std / np.sqrt(n))
    assert_allclose(wide.std(), noise_std, rtol=4 / np.sqrt(2 * n), atol=0)
    assert kstest(wide.ravel() / noise_std, "norm").pvalue > 1e-3
    # The largest of n normal numbers: beyond 4 all but surely, P = (1 - 3e-5)^n.
    assert noise.max() > 4 * noise_std
    assert noise.min() < -4 * noise_std
    twice = gaussian_noise(SEED, shape, noise_std=2 * noise_std)
    assert_allclose(twice, 2 * noise, rtol=1e-6, atol=0)
    assert not gaussian_noise(SEED, (9,), noise_std=0.0).any()
    x = X + gaussian_noise(SEED, X.shape, noise_std=noise_std)
    assert x.dtype == np.float32


def test_epoch_rows_are_a_permutation_of_their_own():
    orders = [epoch_rows(SEED, epoch, 100) for epoch in range(25)]
    for order in orders:
        assert_array_equal(np.sort(order), np.arange(100))
    assert len({order.tobytes() for order in orders}) == 25


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(4, [4, 4, 3]), (11, [11]), (64, [11]), (1, [1] * 11)]
)
def test_each_epoch_visits_each_row_once(batch_size, sizes):
    before = X.copy()
    found = collect(batch_size=batch_size)
    assert [len(x) for x, _ in found] == sizes * 3
    epochs = by_epoch(found, len(sizes))
    assert len(epochs) == 3
    for epoch, rows in enumerate(epochs):
        assert_array_equal(np.sort(rows), np.arange(SIZE))
        assert_array_equal(rows, epoch_rows(SEED, epoch, SIZE))
    for x, y in found:
        assert x.dtype == np.float32
        assert y.dtype == Y.dtype
        assert_array_equal(x, X[y])
    assert_array_equal(X, before)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_restart_sees_the_batches_of_the_undisturbed_run(bootstrap):
    undisturbed = collect(epochs=4, bootstrap=bootstrap)
    assert len(undisturbed) == 12
    for first in range(4):
        rest = collect(epochs=4, first=first, bootstrap=bootstrap)
        assert_same_batches(rest, undisturbed[3 * first :])
    assert_same_batches(collect(epochs=2, bootstrap=bootstrap), undisturbed[:6])


def test_the_pipeline_knows_the_number_of_its_batches():
    assert len(batches(X, Y, np.zeros((2, SIZE), int), batch_size=4)) == 6


def test_bootstrap_reaches_the_first_and_the_last_row():
    assert {n for seed in range(50) for n in bootstrap_indices(seed, 3)} == {0, 1, 2}


def test_members_see_different_batches():
    one, other = by_epoch(collect()), by_epoch(collect(seed=SEED - 1))
    assert (np.concatenate(one) != np.concatenate(other)).any()


def test_bootstrap_is_training_on_the_replicate():
    rows = bootstrap_indices(SEED, SIZE)
    assert len(set(rows)) < SIZE
    found = collect(bootstrap=True)
    for epoch in by_epoch(found):
        assert_array_equal(np.sort(epoch), np.sort(rows))
    assert_same_batches(found, collect(X[rows], Y[rows]))


def test_labels_may_be_probabilities():
    probs = np.random.default_rng(1).dirichlet(np.ones(10), SIZE).astype(np.float32)
    for (_, got), (_, rows) in zip(collect(y=probs), collect(), strict=True):
        assert_array_equal(got, probs[rows])
