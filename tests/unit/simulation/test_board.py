from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from umbel.simulation.board import NOBODY, Board


def open_board(workers: int, homes: list[int], capacity: int = 4) -> Board:
    board = Board(workers, capacity)
    board.publish(len(homes), homes)
    return board


@given(st.data(), st.integers(1, 4), st.integers(0, 150))
def test_each_task_is_taken_exactly_once(data: st.DataObject, workers: int, count: int) -> None:
    """Whoever takes how many, with homes, more tasks, and workers that die."""
    homes = data.draw(st.lists(st.integers(-1, workers - 1), min_size=count, max_size=count))
    board = open_board(workers, homes)
    done: list[int] = []
    holding: dict[int, list[int]] = {w: [] for w in range(workers)}
    total, appended = count, 0
    try:
        while True:
            worker = data.draw(st.integers(0, workers - 1))
            match data.draw(st.sampled_from(["take"] * 5 + ["done", "die", "append"])):
                case "take":
                    taken = board.take(worker, data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70)))
                    holding[worker] += taken
                    if not taken and len(done) + sum(map(len, holding.values())) == total:
                        break
                case "done":
                    done += holding[worker]
                    holding[worker] = []
                case "die":
                    left = [t for t in range(total) if t not in done]
                    assert board.taken(worker, left) == sorted(holding[worker])
                    board.again(worker, left)
                    holding[worker] = []
                case "append" if appended < 3:
                    appended += 1
                    more = data.draw(st.integers(1, 40))
                    board.append(range(total, total + more))
                    total += more
    finally:
        board.close()
    assert sorted([*done, *(t for held in holding.values() for t in held)]) == list(range(total))


def test_a_worker_takes_those_whose_data_it_has_first() -> None:
    board = open_board(2, [0, 0, 1, 0, 1, NOBODY])
    assert board.take(1, 1) == [2]
    assert board.take(1, 1) == [4]
    assert [board.take(1, 1) for _ in range(5)] == [[0], [1], [3], [5], []]
    board.close()


def test_who_has_nobodys_data_is_not_left_to_the_end() -> None:
    board = open_board(2, [NOBODY, *([0, 1] * 20)])
    taken = [board.take(0, 1, window=4)[0] for _ in range(4)]
    assert taken == [1, 3, 0, 5], "it looked no further than four tasks from the first"
    board.close()


def test_something_is_left_for_the_others() -> None:
    board = open_board(2, [NOBODY] * 16)
    assert board.take(0, 64) == [0, 1, 2, 3, 4, 5]
    assert board.take(1, 64) == [6, 7, 8, 9]
    assert board.take(1, 64, 5) == [10, 11, 12, 13, 14]
    assert board.take(0, 64, 5) == [15]
    board.close()


def test_nothing_is_left_when_it_is_cleared() -> None:
    board = open_board(2, [NOBODY] * 5)
    board.clear()
    assert board.take(0, 1) == []
    board.append([5, 6])
    assert board.take(0, 1) == [5]
    board.close()


def test_what_a_worker_does() -> None:
    board = open_board(2, [NOBODY])
    assert board.doing(1) == NOBODY
    board.note(1, 7)
    assert board.doing(1) == 7
    board.again(1, [0])
    assert board.doing(1) == NOBODY
    board.close()


def elsewhere(board: Board, program: str) -> subprocess.Popen[str]:
    """Another process that sees the same board."""
    handles, count = board.handles, board.capacity
    see = f"import sys; from umbel.simulation.board import Board; board = Board({board._workers}, {count}, {handles})\n"
    return subprocess.Popen(
        [sys.executable, "-c", see + program],
        pass_fds=[handle for handle in board.handles if isinstance(handle, int)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_another_process_sees_it() -> None:
    board = open_board(2, [NOBODY] * 3000)
    said, _ = elsewhere(board, "print(board.take(1, 3)); board.note(1, 2)").communicate()
    assert said == "[0, 1, 2]\n"
    assert board.doing(1) == 2
    assert board.taken(1, range(3000)) == [0, 1, 2]
    board.close()


def test_processes_that_take_at_once_get_each_task_once() -> None:
    board = open_board(4, [i % 5 - 1 for i in range(2000)])
    take = "print(flush=True); sys.stdin.readline()\nwhile tasks := board.take({}, 3):\n    print(*tasks)"
    runners = [elsewhere(board, take.format(worker)) for worker in range(4)]
    for runner in runners:
        assert runner.stdout is not None
        runner.stdout.read(1)
    took = [int(task) for runner in runners for task in runner.communicate("\n")[0].split()]
    assert sorted(took) == list(range(2000))
    board.close()


def test_the_lock_is_free_when_its_holder_is_killed() -> None:
    """And the list, which it left half changed, is made anew."""
    board = open_board(2, [NOBODY] * 10)
    held = "board._lock.__enter__(); board._taker[[0, 1]] = 1; board._order[2] = 9; print(flush=True); sys.stdin.read()"
    with elsewhere(board, held) as other:
        assert other.stdout is not None
        other.stdout.read(1)
        other.kill()
        other.wait()
    assert board.taken(1, range(10)) == [0, 1]
    board.again(1, range(10))
    took: list[int] = []
    while tasks := board.take(0, 4):
        took += tasks
    assert took == list(range(10))
    board.close()


def test_whose_exchange_is_over_takes_nothing_of_the_next() -> None:
    board = Board(1)
    late = Board(1, handles=board.handles)
    board.exchange = late.exchange = 1
    board.publish(2)
    assert late.take(0, 1) == [0]
    board.exchange = 2
    board.publish(1)
    assert late.take(0, 1) == []
    late.exchange = 2
    assert late.take(0, 1) == [0]
    board.close()
