"""Whitening: decorrelation, dimensions, rank, signs and files."""

import re

import h5py
import numpy as np
import pytest
import threadpoolctl
from sklearn.covariance import ledoit_wolf_shrinkage

from index.folder.sums import MatrixSums, Pairs, groups_of
from index.whitening import (
    Whitening,
    _shrunk_within,
    fit_whitening,
    load_whitening,
    whitening_of,
)
from retrieval.errors import LmrError


def fit_supervised_whitening(vectors, landmark, power=0.5, n_dimensions=None):
    return whitening_of(MatrixSums(vectors, Pairs(landmark)), "supervised", power, n_dimensions)


def correlated(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) * np.geomspace(1, 0.1, d) @ np.linalg.qr(rng.standard_normal((d, d)))[0]) + 0.3


def shrunk_within(vectors, landmark):
    return _shrunk_within(MatrixSums(vectors, Pairs(landmark)).pairs(), vectors.shape[1])


def spread(whitening, vectors):
    """Standard deviation of each whitened component, before unit length."""
    return ((vectors - whitening.mean) @ whitening.matrix).std(axis=0)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_each_component_keeps_its_deviation_to_the_power_left(power):
    vectors = correlated(500, 6)
    plain = spread(fit_whitening(vectors, power=0.0), vectors)
    assert spread(fit_whitening(vectors, power), vectors) == pytest.approx(plain ** (1 - power))
    assert (np.diff(plain) < 0).all()


def test_whitened_components_are_uncorrelated():
    vectors = correlated(500, 6)
    whitening = fit_whitening(vectors, 1.0)
    assert np.cov(((vectors - whitening.mean) @ whitening.matrix).T, bias=True) == pytest.approx(np.eye(6), abs=1e-9)


def test_whitened_vectors_have_unit_length_and_float32():
    out = fit_whitening(correlated(50, 6)).apply(correlated(10, 6, seed=1).astype(np.float32))
    assert (out.shape, out.dtype) == ((10, 6), np.float32)
    assert np.linalg.norm(out, axis=1) == pytest.approx(np.ones(10), abs=1e-6)


def test_at_most_512_components_are_kept_unless_asked():
    vectors = np.random.default_rng(0).standard_normal((600, 520))
    assert fit_whitening(vectors).matrix.shape == (520, 512)
    assert fit_whitening(vectors, n_dimensions=520).matrix.shape == (520, 520)
    assert fit_whitening(vectors, n_dimensions=7).matrix.shape == (520, 7)


def test_fewer_vectors_than_dimensions_leave_one_component_less_than_vectors():
    whitening = fit_whitening(correlated(5, 20))
    assert whitening.matrix.shape == (20, 4)
    assert np.abs(whitening.matrix).max() < 100


def test_components_whose_variance_is_rounding_are_dropped():
    vectors = correlated(200, 6).astype(np.float32)
    vectors = np.concatenate([vectors, vectors[:, :2] * 0.5, np.ones((200, 1), np.float32)], axis=1)
    assert fit_whitening(vectors, 1.0).matrix.shape == (9, 6)


def test_the_noise_of_float16_is_no_component():
    flat = np.random.default_rng(0).standard_normal((400, 3)) @ np.random.default_rng(1).standard_normal((3, 64))
    flat = (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float16)
    assert fit_whitening(flat, 1.0).matrix.shape == (64, 3)


def test_the_largest_entry_of_each_component_is_positive():
    matrix = fit_whitening(correlated(50, 6)).matrix
    assert (matrix[np.abs(matrix).argmax(axis=0), np.arange(6)] > 0).all()


def test_the_order_of_the_vectors_changes_only_rounding():
    vectors = correlated(100, 6)
    assert fit_whitening(vectors[::-1]).matrix == pytest.approx(fit_whitening(vectors).matrix, abs=1e-9)


def test_a_vector_equal_to_the_mean_becomes_zero():
    whitening = Whitening(np.array([1.0, 2.0]), np.eye(2))
    assert whitening.apply(np.array([[1.0, 2.0]])).tolist() == [[0.0, 0.0]]


def test_vectors_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=re.escape("vectors must be (n, 2), not (1, 3)")):
        Whitening(np.zeros(2), np.eye(2)).apply(np.zeros((1, 3)))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_vectors_that_do_not_differ_cannot_be_whitened(n):
    with pytest.raises(LmrError) as error:
        fit_whitening(np.full((n, 4), 0.1))
    do = "does" if n == 1 else "do"
    expected = f"whitening needs descriptors that differ, the {n} given {do} not; give `whitening_power` 0"
    assert str(error.value) == expected


def test_more_dimensions_than_there_are_is_an_error():
    with pytest.raises(LmrError) as error:
        fit_whitening(correlated(20, 6), n_dimensions=7)
    assert str(error.value) == "7 dimensions asked of whitening, the descriptors have 6; give 1 to 6"


def test_a_saved_whitening_is_the_same(tmp_path):
    whitening = fit_whitening(correlated(20, 6))
    whitening.save(tmp_path / "whiten.h5")
    loaded = load_whitening(tmp_path / "whiten.h5")
    assert (loaded.mean == whitening.mean).all()
    assert (loaded.matrix == whitening.matrix).all()


def test_a_missing_whitening_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(LmrError) as error:
        load_whitening(tmp_path / "whiten.h5")
    assert str(error.value) == f"{tmp_path / 'whiten.h5'}: there is no such file; run lmr build-index again"


@pytest.mark.parametrize("damage", ["not hdf5", "cut", "no mean", "nan", "text"])
def test_a_damaged_whitening_file_is_an_error_that_names_it(tmp_path, damage):
    path = tmp_path / "whiten.h5"
    fit_whitening(correlated(20, 6)).save(path)
    if damage == "not hdf5":
        path.write_text("mean,matrix\n")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    else:
        with h5py.File(path, "a") as file:
            del file["mean"]
            if damage != "no mean":
                file["mean"] = np.full(6, np.nan) if damage == "nan" else "a" * 6
    with pytest.raises(LmrError) as error:
        load_whitening(path)
    what = {
        "not hdf5": "not a whitening (no HDF5 file)",
        "cut": "cut short; copy it again if it is a copy, else",
        "no mean": "damaged (it has no dataset mean)",
        "nan": "damaged (mean or matrix holds NaN or infinity)",
        "text": "damaged (mean must have rows, got the shape ())",
    }[damage]
    separator = " " if damage == "cut" else "; "
    assert str(error.value) == f"{path} is {what}{separator}run lmr build-index again"


def test_another_format_version_is_an_error_that_names_both(tmp_path):
    path = tmp_path / "whiten.h5"
    fit_whitening(correlated(20, 6)).save(path)
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(LmrError) as error:
        load_whitening(path)
    assert str(error.value) == f"{path}: format_version 2, this program reads 1; use the lmr that made it"


def test_a_whitening_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "nowhere" / "whiten.h5"
    with pytest.raises(LmrError) as error:
        fit_whitening(correlated(20, 6)).save(path)
    reason = "No such file or directory"
    assert str(error.value) == f"{path}: cannot be written ({reason}); free space or choose another folder"


def labelled(counts, d=4, seed=0):
    """Clusters that differ little along the first axis and much along the last; their landmarks."""
    rng = np.random.default_rng(seed)
    landmark = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    centres = rng.normal(size=(len(counts), d))
    return centres[landmark] + rng.normal(size=(len(landmark), d)) * np.linspace(0.1, 1, d), landmark


def slow_covariance(vectors, landmark):
    """Mean outer product of pair differences: each image with each of its partners, each image counted once."""
    total, n = np.zeros((vectors.shape[1],) * 2), 0
    for i in np.flatnonzero(landmark >= 0):
        partners = [j for j in np.flatnonzero(landmark == landmark[i]) if j != i]
        if partners:
            total += np.mean([np.outer(vectors[i] - vectors[j], vectors[i] - vectors[j]) for j in partners], axis=0)
            n += 1
    return total / n


@pytest.mark.parametrize("block_rows", [1, 7, 8192])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_matching_pairs_differ_less_where_they_differed_most(monkeypatch, block_rows, power):
    vectors, landmark = labelled([40, 30, 1, 2, 30])
    within = np.sort(np.linalg.eigvalsh(shrunk_within(vectors, landmark)))
    monkeypatch.setattr("index.folder.sums.BLOCK_ROWS", block_rows)
    order = np.random.default_rng(1).permutation(len(vectors))
    matrix = fit_supervised_whitening(vectors[order], landmark[order], power).matrix
    # Each eigenvalue to the power of what is left, so that 1 makes all alike.
    found = np.linalg.eigvalsh(matrix.T @ shrunk_within(vectors, landmark) @ matrix)
    assert found == pytest.approx(np.sort(within * (within / within.mean()) ** -power))
    assert found[-1] / found[0] == pytest.approx((within[-1] / within[0]) ** (1 - power))


def test_the_covariance_of_pairs_is_that_of_the_slow_version_shrunk_as_scikit_learn_does():
    vectors, landmark = labelled([3, 1, 5, 2])
    landmark[[0, 4]] = [-1, -1]
    pairs = Pairs(landmark)
    blocks = [pairs.differences(vectors, i)[0] for i in range(pairs.n_blocks)]
    expected = slow_covariance(vectors, landmark)
    assert sum(block.T @ block for block in blocks) / sum(map(len, blocks)) == pytest.approx(expected)
    n, n_landmarks = 2 + 4 + 2, 3
    share = max(ledoit_wolf_shrinkage(np.concatenate(blocks), assume_centered=True), 1 / (1 + n - n_landmarks))
    shrunk = (1 - share) * expected + share * np.trace(expected) / 4 * np.eye(4)
    assert shrunk_within(vectors, landmark) == pytest.approx(shrunk)


def test_power_0_only_turns():
    turned = fit_supervised_whitening(*labelled([20, 20, 20]), 0.0).matrix
    assert turned.T @ turned == pytest.approx(np.eye(4), abs=1e-9)


def test_one_pair_is_enough_and_blows_nothing_up():
    vectors = np.random.default_rng(0).normal(size=(30, 16))
    landmark = np.full(30, -1, dtype=np.int32)
    landmark[[3, 9]] = 0
    whitening = fit_supervised_whitening(vectors, landmark, 1.0)
    # Half of S is the pair's own direction with all its variance, half the same in every direction: 17 to 1.
    values = np.linalg.svd(whitening.matrix, compute_uv=False)
    assert values[0] / values[-1] == pytest.approx(np.sqrt(17))


def test_learnt_whitening_keeps_the_largest_components_in_their_order():
    vectors, landmark = labelled([50, 50, 50], d=8)
    whole = fit_supervised_whitening(vectors, landmark, 0.5)
    spreads = spread(whole, vectors)
    assert (np.diff(spreads) < 0).all()
    few = fit_supervised_whitening(vectors, landmark, 0.5, 3)
    assert few.matrix == pytest.approx(whole.matrix[:, :3])


def test_learnt_whitening_needs_pairs_that_differ():
    vectors = correlated(6, 4)
    without = np.arange(6, dtype=np.int32) - 3
    without[:3] = -1
    with pytest.raises(LmrError) as error:
        fit_supervised_whitening(vectors, without)
    assert str(error.value) == (
        "supervised whitening needs landmarks with two pictures or more, there are none; give `whitening` pca"
    )
    with pytest.raises(LmrError) as error:
        fit_supervised_whitening(vectors[[0, 0, 1, 1]], np.array([0, 0, 1, 1], dtype=np.int32))
    assert str(error.value) == (
        "supervised whitening needs pictures of one landmark that differ, there are none; give `whitening` pca"
    )


# Sums over blocks


@pytest.mark.parametrize(("n_blocks", "n_groups"), [(0, 0), (1, 1), (64, 64), (65, 33), (128, 64), (1000, 63)])
def test_blocks_are_in_at_most_64_groups_one_behind_the_other(n_blocks, n_groups):
    groups = groups_of(n_blocks)
    assert [block for group in groups for block in group] == list(range(n_blocks))
    assert len(groups) == n_groups


@pytest.mark.parametrize("kind", ["pca", "supervised"])
def test_a_whitening_has_the_same_bits_on_any_number_of_threads(monkeypatch, kind):
    monkeypatch.setattr("index.folder.sums.BLOCK_ROWS", 50)
    vectors = correlated(4001, 61).astype(np.float32)
    landmark = np.random.default_rng(3).integers(-1, 300, size=4001).astype(np.int32)
    made = []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr("index.folder.sums.count_cores", lambda n=n_threads: n)
        with threadpoolctl.threadpool_limits(n_threads):
            if kind == "pca":
                made.append(fit_whitening(vectors))
            else:
                made.append(fit_supervised_whitening(vectors, landmark))
    for one in made[1:]:
        assert one.mean.tobytes() == made[0].mean.tobytes()
        assert one.matrix.tobytes() == made[0].matrix.tobytes()
