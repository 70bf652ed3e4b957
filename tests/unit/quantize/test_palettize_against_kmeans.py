"""Never a higher squared error on any group than the k-means that others palettize with."""

import numpy as np
import pytest
from palettize_samples import KINDS, group_errors, weight
from sklearn.cluster import KMeans

from fastvlm_compile.quantize.palettize import palettize
from fastvlm_compile.quantize.scheme import Palette

ROUNDING = 1e-9
"""Errors are sums of squares; theirs and ours may be the same partition summed up otherwise."""


def of_scikit_learn(group, clusters):
    found = KMeans(clusters, init="k-means++", n_init=1, tol=1e-2, random_state=0).fit(group)
    return found.cluster_centers_.astype(np.float16)[found.labels_]


def of_coremltools(group, clusters):
    from coremltools._deps import kmeans1d  # what coremltools takes for large float16 weights

    values, inverse, counts = np.unique(group, return_inverse=True, return_counts=True)
    found = kmeans1d.cluster(values, min(clusters, len(values)), weights=counts)
    return np.array(found.centroids).astype(np.float16)[np.array(found.clusters)][inverse]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 4, 6])
@pytest.mark.parametrize("theirs", [of_scikit_learn, of_coremltools])
def test_no_group_has_a_higher_error_than_with_k_means(kind, bits, theirs) -> None:
    values = weight(kind, (16, 400), seed=bits)
    tensor = palettize(values, Palette(bits=bits, group_size=4))
    groups = values.reshape(4, -1)
    restored = np.stack([theirs(group[:, None], 2**bits).ravel() for group in groups])
    ours = group_errors(values, tensor.dequantize(), 4)
    others = group_errors(groups, restored, 4)
    assert (ours <= others * (1 + ROUNDING)).all(), ours / others
    fewer = palettize(values, Palette(bits={1: 1, 4: 3, 6: 4}[bits], group_size=16))
    worse = group_errors(values, fewer.dequantize(), 4)
    assert not (worse <= others * (1 + ROUNDING)).all(), "the negative control"
