import random

import numpy as np
import pytest
import torch

from tunesmith.train import chance


def draw() -> list[float]:
    """Of each generator, also the second number of a pair that was drawn at once."""
    pairs = [random.gauss(0, 1), random.random(), float(np.random.normal()), float(np.random.random())]
    return [*pairs, *torch.rand(2).tolist()]


@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_what_is_put_back_draws_the_same_numbers_after_a_file_too(drawn: int) -> None:
    for _ in range(drawn):  # an odd number of normal ones leaves one in store
        draw()
    taken = chance.take()
    expected = [draw() for _ in range(3)]
    chance.put_back(taken)
    assert [draw() for _ in range(3)] == expected
    chance.put_back(chance.from_tensors(chance.to_tensors(taken)))
    assert [draw() for _ in range(3)] == expected


def test_a_file_that_lacks_a_generator_is_a_key_error() -> None:
    tensors = chance.to_tensors(chance.take())
    for name in tensors:
        with pytest.raises(KeyError):
            chance.from_tensors({key: value for key, value in tensors.items() if key != name})
