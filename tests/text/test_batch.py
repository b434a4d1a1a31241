from hypothesis import given
from hypothesis import strategies as st

from tunesmith.text.batch import EPOCHS, STEPS, decide_batch, decide_epochs


@given(st.integers(1, 10**7))
def test_a_batch_is_a_power_of_two_from_4_to_16_and_grows_with_the_rows(rows: int) -> None:
    assert decide_batch(rows) in (4, 8, 16)
    assert decide_batch(rows) <= decide_batch(rows + 1)


def test_batches_by_rows() -> None:
    assert [decide_batch(rows) for rows in (1, 377, 378, 754, 755, 10**6)] == [4, 4, 8, 8, 16, 16]


@given(st.integers(1, 10**6), st.sampled_from([1, 2]))
def test_passes_make_the_steps_where_their_bounds_allow(epoch: int, slowness: int) -> None:
    epochs = decide_epochs(epoch, slowness)
    assert 2 <= epochs <= slowness * EPOCHS
    assert epochs * epoch >= slowness * STEPS or epochs == slowness * EPOCHS
    assert (epochs - 1) * epoch < slowness * STEPS or epochs == 2
