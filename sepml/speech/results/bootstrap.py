"""Statistics of a mean: a bootstrap interval over mixtures, and a significance test of paired differences."""

import numpy as np

RESAMPLES = 2000
PERMUTATIONS = 9999
LEVEL = 0.95
SEED = 0
_AT_ONCE = 1 << 20


def interval_of_mean(values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap interval of the mean.

    Args:
        values: (n,) one value a mixture: mixtures are drawn with replacement.
        seed: the interval of the same values is the same.

    Returns:
        its two ends, which do not depend on the order of the values; None for fewer than two values.

    Source: Efron, Tibshirani, "An introduction to the bootstrap", 1993; as `scipy.stats.bootstrap(method="percentile")`.
    """
    if len(values) < 2:
        return None
    values = np.sort(values)
    rng = np.random.default_rng(seed)
    # In pieces, as 3,000 mixtures times 2,000 resamples would be 100 MB.
    each = max(1, _AT_ONCE // len(values))
    means = [
        values[rng.integers(0, len(values), (min(each, resamples - done), len(values)))].mean(1)
        for done in range(0, resamples, each)
    ]
    low, high = np.percentile(np.concatenate(means), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def paired_p_value(differences: np.ndarray, permutations: int = PERMUTATIONS, seed: int = SEED) -> float | None:
    """The p-value of a two-sided sign-flip test of the mean of paired differences.

    Without an effect, a mixture's difference has either sign with equal probability. The test is about the mean, which is
    what the tables report, and assumes no distribution; a t-test assumes a normal one, and Wilcoxon's test is about ranks.
    All flips are made where there are no more than `permutations` of them, otherwise that many random ones. The result is
    that of `scipy.stats.permutation_test(permutation_type="samples")`, in less time.

    Args:
        differences: (n,) one a mixture.

    Returns:
        the two-sided p-value, or None for fewer than two differences.
    """
    if len(differences) < 2:
        return None
    if not differences.any():
        return 1.0
    # The result must not depend on the order of the mixtures.
    differences = np.sort(differences)
    observed, count = abs(differences.mean()), len(differences)
    # Values that differ by rounding only count as equal.
    least = observed * (1 - 1e-9)
    if 2**count <= permutations:
        every = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float(np.mean(np.abs(every @ differences) >= least * count))
    rng = np.random.default_rng(seed)
    each = max(1, _AT_ONCE // count)
    as_large = 1
    for done in range(0, permutations, each):
        signs = 1.0 - 2 * rng.integers(0, 2, (min(each, permutations - done), count), dtype=np.int8)
        as_large += int(np.count_nonzero(np.abs(signs @ differences) >= least * count))
    return as_large / (permutations + 1)
