import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest

from advens.training.samples import (
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
    """Return the batches of the epochs from `first` on, as numpy arrays."""
    orders = [epoch_rows(seed, e, SIZE, **options) for e in range(first, epochs)]
    pipeline = batches(x, y, orders, batch_size=batch_size)
    return [(np.asarray(x), np.asarray(y)) for x, y in pipeline]


def rows_by_epoch(collected, steps=3):
    """Return the rows of each epoch, which are their own labels in `Y`."""
    labels = [y for _, y in collected]
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
    of_many_runs = {seed for run in range(20) for seed in member_seeds(run, 10)}
    assert len(of_many_runs) == 200


def test_students_and_attempts_have_their_own_weights():
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
    draws = 20
    rows = np.array([bootstrap_indices(seed, size) for seed in range(draws)])
    assert rows.shape == (draws, size)
    assert rows.dtype == np.int64
    assert rows.min() >= 0
    assert rows.max() < size
    # p: the probability that a given row is left out; q: that two given rows are.
    p, q = (1 - 1 / size) ** size, (1 - 2 / size) ** size
    std = np.sqrt(p / size + (1 - 1 / size) * q - p**2)
    assert_allclose(1 - p, 0.632, rtol=0, atol=5e-4)
    distinct = [len(np.unique(row)) / size for row in rows]
    assert_allclose(distinct, 1 - p, rtol=0, atol=4 * std)
    assert_allclose(np.mean(distinct), 1 - p, rtol=0, atol=4 * std / np.sqrt(draws))
    # All rows are equally likely: this is the mean of uniform numbers.
    atol = 4 * np.sqrt(1 / 12 / size / draws)
    assert_allclose(rows.mean() / (size - 1), 0.5, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "draw",
    [
        bootstrap_indices,
        lambda seed, size: gaussian_noise(seed, (size, 2), noise_std=0.1),
        lambda seed, size: epoch_rows(seed, 0, size),
    ],
)
def test_draws_depend_on_seed_and_size_alone(draw):
    np.random.seed(1)
    first = draw(SEED, 500)
    state_after = np.random.get_state()[1].copy()
    np.random.seed(2)
    assert_array_equal(draw(SEED, 500), first)
    # Nor do they change numpy's global state.
    np.random.seed(1)
    assert_array_equal(np.random.get_state()[1], state_after)
    assert (draw(SEED - 1, 500) != first).any()
    assert len(draw(SEED, 499)) == 499


def test_purposes_do_not_share_random_numbers(monkeypatch):
    default_rng, first_numbers = np.random.default_rng, []

    def noting_rng(key):
        first_numbers.append(default_rng(key).integers(2**63))
        return default_rng(key)

    monkeypatch.setattr(np.random, "default_rng", noting_rng)
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
    values = noise.astype(np.float64)
    assert_allclose(values.mean(), 0, rtol=0, atol=4 * noise_std / np.sqrt(n))
    assert_allclose(values.std(), noise_std, rtol=4 / np.sqrt(2 * n), atol=0)
    assert kstest(values.ravel() / noise_std, "norm").pvalue > 1e-3
    # The largest of n normal numbers is below 4 with probability (1 - 3e-5)^n.
    assert noise.max() > 4 * noise_std
    assert noise.min() < -4 * noise_std
    doubled = gaussian_noise(SEED, shape, noise_std=2 * noise_std)
    assert_allclose(doubled, 2 * noise, rtol=1e-6, atol=0)
    assert not gaussian_noise(SEED, (9,), noise_std=0.0).any()
    x = X + gaussian_noise(SEED, X.shape, noise_std=noise_std)
    assert x.dtype == np.float32


def test_each_epoch_has_its_own_permutation():
    orders = [epoch_rows(SEED, epoch, 100) for epoch in range(25)]
    for order in orders:
        assert_array_equal(np.sort(order), np.arange(100))
    assert len({order.tobytes() for order in orders}) == 25


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(4, [4, 4, 3]), (11, [11]), (64, [11]), (1, [1] * 11)]
)
def test_each_epoch_visits_each_row_once(batch_size, sizes):
    before = X.copy()
    collected = collect(batch_size=batch_size)
    assert [len(x) for x, _ in collected] == sizes * 3
    epochs = rows_by_epoch(collected, len(sizes))
    assert len(epochs) == 3
    for epoch, rows in enumerate(epochs):
        assert_array_equal(np.sort(rows), np.arange(SIZE))
        assert_array_equal(rows, epoch_rows(SEED, epoch, SIZE))
    for x, y in collected:
        assert x.dtype == np.float32
        assert y.dtype == Y.dtype
        assert_array_equal(x, X[y])
    assert_array_equal(X, before)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_restart_sees_the_batches_of_the_undisturbed_run(bootstrap):
    undisturbed = collect(epochs=4, bootstrap=bootstrap)
    assert len(undisturbed) == 12
    for first in range(4):
        resumed = collect(epochs=4, first=first, bootstrap=bootstrap)
        assert_same_batches(resumed, undisturbed[3 * first :])
    assert_same_batches(collect(epochs=2, bootstrap=bootstrap), undisturbed[:6])


def test_the_pipeline_knows_the_number_of_its_batches():
    assert len(batches(X, Y, np.zeros((2, SIZE), int), batch_size=4)) == 6


def test_bootstrap_reaches_the_first_and_the_last_row():
    assert {n for seed in range(50) for n in bootstrap_indices(seed, 3)} == {0, 1, 2}


def test_members_see_different_batches():
    first = rows_by_epoch(collect())
    second = rows_by_epoch(collect(seed=SEED - 1))
    assert (np.concatenate(first) != np.concatenate(second)).any()


def test_bootstrap_trains_on_the_same_replicate_in_every_epoch():
    rows = bootstrap_indices(SEED, SIZE)
    assert len(set(rows)) < SIZE
    collected = collect(bootstrap=True)
    for epoch in rows_by_epoch(collected):
        assert_array_equal(np.sort(epoch), np.sort(rows))
    assert_same_batches(collected, collect(X[rows], Y[rows]))


def test_labels_may_be_probabilities():
    probs = np.random.default_rng(1).dirichlet(np.ones(10), SIZE).astype(np.float32)
    for (_, got), (_, rows) in zip(collect(y=probs), collect(), strict=True):
        assert_array_equal(got, probs[rows])
