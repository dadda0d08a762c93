from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umbel.simulation.arena import LINE, Arena

SIZE = 64 * LINE


@given(st.lists(st.one_of(st.integers(1, 20 * LINE), st.integers(-30, -1), st.just(0)), max_size=60))
def test_pieces_never_overlap_and_what_is_free_comes_back(steps: list[int]) -> None:
    """A positive step takes so many bytes, a negative one frees the piece taken so many steps ago, 0 grows."""
    free: set[int] = set()
    size = SIZE
    taken: dict[int, int] = {}  # offset -> end
    order: list[int] = []
    arena = Arena(SIZE, lambda offset: offset in free)
    for step in steps:
        if step == 0:
            size += 8 * LINE
            arena.grow(size)
        elif step < 0:
            if len(order) >= -step:
                free.add(order.pop(step))
        else:
            for offset in free & taken.keys():
                del taken[offset]
            found = arena.take(step)
            if found is None:
                gaps = zip([0, *sorted(taken.values())], [*sorted(taken), size], strict=True)
                # what is free in the middle of the stretch that is being handed out may wait for the next look
                assert all(end - begin < -(-step // LINE) * LINE for begin, end in gaps)
            else:
                offset = found
                assert offset % LINE == 0
                assert offset + step <= size
                assert all(offset + step <= begin or end <= offset for begin, end in taken.items())
                free.discard(offset)
                taken[offset] = offset + -(-step // LINE) * LINE
                order.append(offset)
    free.update(taken)
    assert arena.taken == 0
    assert arena.take(size) is not None


def test_updates_that_are_done_with_in_order_take_turns_in_one_region() -> None:
    free: set[int] = set()
    arena = Arena(4 * LINE, lambda offset: offset in free)
    pieces = []
    for _ in range(50):
        offset = arena.take(LINE)
        assert offset is not None
        free.discard(offset)
        pieces.append(offset)
        if len(pieces) > 2:
            free.add(pieces.pop(0))
    assert arena.take(4 * LINE) is None
