import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.text.render import Example
from tunesmith.train.plan_batches import (
    IGNORE,
    Ahead,
    BlockSource,
    ExampleSource,
    MicroBatch,
    collate,
    cut,
    halve,
    pack,
    permutation,
    shorten,
)

SIZES = st.lists(st.integers(2, 12), min_size=1, max_size=25)


def sequences(sizes: list[int]) -> list[Example]:
    """Each of its own length and its own tokens, the second half trained."""
    return [Example([n] * size, [i >= size // 2 for i in range(size)], str(n)) for n, size in enumerate(sizes)]


def test_padding_is_told_by_length_and_labels_by_the_mask() -> None:
    batch = collate([Example([5, 6, 7], [False, True, True], "a"), Example([8, 5], [False, True], "b")], pad_id=5)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 5, 5]]
    assert batch.labels.tolist() == [[IGNORE, 6, 7], [IGNORE, 5, IGNORE]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert (batch.trained_tokens, batch.tokens) == (3, 5)


def test_the_first_token_of_a_row_is_never_counted_as_trained() -> None:
    assert collate([Example([1, 2], [True, True], "a")], 0).trained_tokens == 1


@given(SIZES, st.integers(1, 60))
def test_a_cut_keeps_every_row_once_within_the_limit_longest_first(sizes: list[int], limit: int) -> None:
    batches = cut(sequences(sizes), limit, pad_id=99)
    assert sorted(int(row[0]) for b in batches for row in b.input_ids) == list(range(len(sizes)))
    assert all(b.input_ids.size <= limit or len(b.input_ids) == 1 for b in batches)
    lengths = [int(n) for b in batches for n in b.lengths]
    assert lengths == sorted(lengths, reverse=True)
    assert sum(b.tokens for b in batches) == sum(sizes)


@given(SIZES, st.integers(1, 9), st.integers(1, 60), st.integers(0, 3))
def test_an_epoch_holds_each_row_once(sizes: list[int], batch: int, limit: int, seed: int) -> None:
    source = ExampleSource(sequences(sizes), batch, limit, 99, seed)
    for epoch in range(2):
        steps = range(epoch * source.steps_per_epoch, (epoch + 1) * source.steps_per_epoch)
        found = [int(row[0]) for n in steps for b in source.step(n) for row in b.input_ids]
        assert sorted(found) == list(range(len(sizes)))
        assert all(sum(len(b.lengths) for b in source.step(n)) <= batch for n in steps)


@given(st.integers(1, 50), st.integers(0, 5))
def test_a_step_is_a_function_of_seed_and_number_alone(step: int, seed: int) -> None:
    rows = sequences([3, 4, 5, 6, 7, 8, 9])
    first, second = ExampleSource(rows, 2, 20, 0, seed), ExampleSource(rows, 2, 20, 0, seed)
    second.step(step - 1), second.step(step + 7)
    for a, b in zip(first.step(step), second.step(step), strict=True):
        assert np.array_equal(a.input_ids, b.input_ids)
        assert np.array_equal(a.labels, b.labels)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(permutation(20, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert tuple(permutation(20, 1, 2)) == tuple(permutation(20, 1, 2))


def test_validation_takes_every_row_once() -> None:
    source = ExampleSource(sequences([2, 9, 4]), 2, 10, 0)
    assert sorted(int(row[0]) for b in source.all() for row in b.input_ids) == [0, 1, 2]


@given(st.integers(9, 80), st.integers(1, 8), st.integers(1, 4), st.integers(0, 3))
def test_blocks_predict_every_token_of_the_stream_once_but_the_first_and_the_rest(
    length: int, block: int, batch: int, seed: int
) -> None:
    source = BlockSource(np.arange(length, dtype=np.int32), block, batch, 2 * (block + 1), seed)
    steps = [source.step(n) for n in range(source.steps_per_epoch)]
    predicted = sorted(int(t) for micros in (*steps,) for b in micros for t in b.labels[:, 1:].ravel())
    assert predicted == list(range(1, source.blocks * block + 1))
    assert length - 1 - len(predicted) < block
    assert sorted(int(t) for b in source.all() for t in b.labels[:, 1:].ravel()) == predicted
    assert all(len(b.lengths) <= 2 for micros in steps for b in micros)


def test_a_block_is_the_stream_as_it_stands() -> None:
    (batch,) = BlockSource(np.arange(9, dtype=np.int32), 4, 2, 100).all()
    assert batch.input_ids.tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    assert batch.input_ids.dtype == np.int64
    assert batch.trained_tokens == 8


def test_a_packed_row_is_its_documents_and_their_first_tokens_have_no_label() -> None:
    packed = pack([Example([5, 6, 7], [True, False, True], "a"), Example([8, 9], [True, True], "b")])
    assert packed.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert packed.labels.tolist() == [[IGNORE, IGNORE, 7, IGNORE, 9]]
    assert packed.lengths.tolist() == [3, 2]
    assert (packed.tokens, packed.trained_tokens) == (5, 2)


@given(st.lists(st.integers(2, 30), min_size=1, max_size=40), st.integers(10, 60))
def test_packing_keeps_every_example_once_and_passes_the_room_only_for_a_row_that_is_longer(
    lengths: list[int], room: int
) -> None:
    examples = [Example([n % 7] * length, [True] * length, str(n)) for n, length in enumerate(lengths)]
    micros = cut(examples, room, None)
    assert sorted(length for micro in micros for length in micro.lengths.tolist()) == sorted(lengths)
    assert all(micro.tokens <= room or len(micro.lengths) == 1 for micro in micros)
    assert sum(2 * micro.tokens <= room for micro in micros) <= 1  # two that are half empty would have been one
    assert sum(micro.trained_tokens for micro in micros) == sum(length - 1 for length in lengths)


def test_halves_of_a_packed_row_are_packed_rows_of_its_documents() -> None:
    whole = pack(
        [Example([1, 2, 3], [True] * 3, "a"), Example([4, 5], [True] * 2, "b"), Example([6, 7], [True] * 2, "c")]
    )
    first, second = halve(whole)
    assert (first.input_ids.tolist(), second.input_ids.tolist()) == ([[1, 2, 3]], [[4, 5, 6, 7]])
    assert second.labels.tolist() == [[IGNORE, 5, IGNORE, 7]]
    assert first.packed
    assert halve(first)[0].input_ids.tolist() == [[1, 2, 3]]
    assert shorten(first, 2).input_ids.tolist() == [[2, 3]]


def test_a_source_that_works_ahead_gives_the_same_batches_in_any_order(examples: list[Example]) -> None:
    source = ExampleSource(examples, 2, 12, None, seed=3)
    ahead = Ahead(source)
    assert ahead.steps_per_epoch == source.steps_per_epoch
    for n in (0, 1, 2, 0, 5, 6, 3):  # on, and back as after a rollback
        for a, b in zip(ahead.step(n), source.step(n), strict=True):
            np.testing.assert_array_equal(a.input_ids, b.input_ids)
            np.testing.assert_array_equal(a.labels, b.labels)
    ahead.close()


def test_the_next_batch_is_made_while_the_current_one_is_used() -> None:
    asked: list[int] = []
    made = threading.Event()

    class Slow:
        steps_per_epoch = 1

        def step(self, n: int) -> list[MicroBatch]:
            asked.append(n)
            if n:
                made.set()
            return []

    ahead = Ahead(Slow())
    ahead.step(7)
    assert made.wait(10)
    ahead.close()
    assert asked[:2] == [7, 8]


def test_what_goes_wrong_ahead_is_raised_when_its_turn_comes() -> None:
    class Broken:
        steps_per_epoch = 1

        def step(self, n: int) -> list[MicroBatch]:
            if n == 1:
                raise OSError("the file is gone")
            return []

    ahead = Ahead(Broken())
    ahead.step(0)
    with pytest.raises(OSError, match="gone"):
        ahead.step(1)
    ahead.close()
