import numpy as np

from mixtura.datasets.synthetic import gaussian_mixture, stripes


def test_points_have_the_moments_of_the_truth():
    sample = gaussian_mixture(40_000, 3, classes=2, components=2, seed=1)
    assert sample.component_class.tolist() == [0, 0, 1, 1]
    assert np.array_equal(sample.label, sample.component_class[sample.component])
    for k in range(4):
        x = sample.x[sample.component == k]
        assert np.abs(x.mean(0) - sample.mean[k]).max() < 0.06  # six standard errors
        assert np.abs(np.cov(x.T) - sample.covariance[k]).max() < 0.1
        assert np.linalg.eigvalsh(sample.covariance[k]).min() > 0.49


def test_stripes_are_the_same_each_time_and_differ_between_classes():
    first, again = stripes(3, 4), stripes(3, 4)
    assert [first.digest(i) for i in range(12)] == [again.digest(i) for i in range(12)]
    assert first.classes == ("stripes0", "stripes1", "stripes2")
    color = np.array([[np.array(first.image(4 * k + i)).std((0, 1)) for i in range(4)] for k in range(3)])
    assert np.abs(np.diff(color.mean(1), axis=0)).max(1).min() > 5 * color.std(1).max()
