"""When a trained network takes the place of a frozen one."""

import numpy as np
import pytest

from mixtura.tasks.training_outcome import MIN_GAIN, judged


@pytest.mark.parametrize(
    ("gain", "spread", "better", "words"),
    [
        (0.1, 0.01, True, "more than a standard error"),
        (0.01, 0.5, False, "no gain of more than a standard error"),
        (-0.1, 0.01, False, "no gain of more than a standard error"),
        (MIN_GAIN / 2, 0.0, False, "too little to count"),  # a network that has not moved
    ],
)
def test_a_gain_has_to_be_sure_and_to_count(gain, spread, better, words):
    before = np.full(64, 1.0)
    sentence, replaced = judged(before, before - gain + spread * np.tile([1.0, -1.0], 32))
    assert replaced is better
    assert words in sentence
    assert sentence.startswith("On 64 validation photos, the loss went from 1.000 to ")
