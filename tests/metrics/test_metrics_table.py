import pytest

from mixtura.metrics import METRICS
from mixtura.names import find


@pytest.mark.parametrize("name", METRICS)
def test_every_name_finds_a_documented_function(name):
    function = find(METRICS, name)
    assert callable(function)
    assert function.__doc__
