from hypothesis import given
from hypothesis import strategies as st

from tunesmith.engine.prefixes import (
    LEAST_SHARED,
    Family,
    Group,
    Text,
    families,
    groups,
    packs,
    shared,
    shared_by_all,
    waves,
)

BLOCK = tuple(range(100, 100 + LEAST_SHARED))
few_ids = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)
prompts = st.tuples(st.sampled_from([(), BLOCK, BLOCK * 2]), few_ids).map(lambda parts: parts[0] + parts[1])
requests = st.lists(
    st.tuples(st.builds(Text, prompts, st.booleans()), st.lists(st.integers(0, 3), max_size=4)), max_size=20
)


def test_what_two_texts_share_ends_at_the_first_difference_or_the_shorter_end() -> None:
    assert shared([1, 2, 3], [1, 2, 4]) == 2
    assert shared([1, 2], [1, 2, 4]) == 2
    assert shared([], [1]) == 0


def test_a_prefix_of_all_leaves_each_a_token_and_is_long_enough_for_a_pass() -> None:
    assert shared_by_all([(*BLOCK, 1), (*BLOCK, 2, 3), (*BLOCK, 1, 5)]) == LEAST_SHARED
    assert shared_by_all([(*BLOCK, 1), (*BLOCK, 1, 2)]) == LEAST_SHARED
    assert shared_by_all([BLOCK, (*BLOCK, 2)]) == 0  # one token less would be worth no pass
    assert shared_by_all([(*BLOCK, 1)]) == 0
    assert shared_by_all([(*BLOCK, 1), (7, *BLOCK)]) == 0
    assert shared_by_all([]) == 0


def test_each_few_shot_block_is_a_group_of_its_own() -> None:
    other = tuple(n + 1000 for n in BLOCK)
    asked = [(Text((*block, n)), [1]) for block in (BLOCK, other) for n in (1, 2, 3)]
    found = groups(families([*asked, (Text((5, 6)), [1]), (Text((*BLOCK, 1), False), [1])], 999))
    assert [(one.prefix, len(one.families)) for one in found] == [(0, 1), (0, 1), (LEAST_SHARED, 3), (LEAST_SHARED, 3)]
    assert [one.room for one in found] == [LEAST_SHARED + 1, 2, 1, 1]


@given(asked=requests, tokens=st.integers(1, 90), kept=st.integers(1, 90), most=st.integers(1, 9))
def test_every_continuation_is_in_one_pass_that_keeps_the_limits(
    asked: list[tuple[Text, list[int]]], tokens: int, kept: int, most: int
) -> None:
    numbers: list[int] = []
    for wave in waves(groups(families(asked, tokens)), kept):
        assert len(wave) == 1 or sum(group.prefix for group in wave) <= kept
        for pack in packs(wave, tokens, most):
            size = sum(family.fed - wave[number].prefix for family, number in pack)
            assert len(pack) == 1 or (size <= tokens and sum(family.asked for family, _ in pack) <= most)
            for family, number in pack:
                start = wave[number].families[0].prompt.ids[: wave[number].prefix]
                assert family.prompt.ids[: len(start)] == start
                assert len(family.prompt.ids) > len(start)
                assert len(family.ends) == 1 or family.fed <= tokens
                assert [asked[n] for n, _ in family.ends] == [(family.prompt, end) for _, end in family.ends]
                numbers += [n for n, _ in family.ends]
    assert sorted(numbers) == [n for n, (_, end) in enumerate(asked) if end]


@given(st.lists(prompts, min_size=2, max_size=8, unique=True))
def test_what_all_share_is_what_each_two_share(texts: list[tuple[int, ...]]) -> None:
    least = min(shared(one, two) for one in texts for two in texts if one is not two)
    fits = min(least, min(map(len, texts)) - 1)
    assert shared_by_all(texts) == (fits if fits >= LEAST_SHARED else 0)


def test_a_group_with_nothing_in_common_is_computed_whole() -> None:
    family = Family(Text((1, 2, 3)), ((0, [4, 5]), (1, [6])))
    assert (family.fed, family.asked) == (4, 3)
    assert Group(0, [family]).room == 4
