import json
import threading
from collections import Counter

import pytest

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import RowError, episode_pipeline
from m2io_jax.errors import UserError

ROWS = [Episode(str(i), "", (), (), (), ()) for i in range(23)]


def named(episode, random):
    """The row's number, and a draw of its own."""
    return int(episode.id), int(random.integers(2**40))


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def numbers(rows):
    return [number for number, _ in rows]


def test_each_epoch_has_every_row_once_in_another_order():
    rows = numbers(episode_pipeline(ROWS, seed=1, transform=named, epochs=3))
    epochs = [rows[i : i + 23] for i in (0, 23, 46)]
    assert len(rows) == 69 and all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] and epochs[0] != list(range(23))


def test_same_seed_same_rows_and_draws_whatever_the_threads():
    one = take(episode_pipeline(ROWS, seed=1, transform=named, threads=0), 50)
    assert take(episode_pipeline(ROWS, seed=1, transform=named, threads=8), 50) == one
    assert take(episode_pipeline(ROWS, seed=2, transform=named), 50) != one
    draws = {}
    for number, draw in one:
        draws.setdefault(number, set()).add(draw)
    assert len({draw for _, draw in one}) == 50 and any(len(each) > 1 for each in draws.values())


def test_processes_share_one_stream():
    whole = take(episode_pipeline(ROWS, seed=5, transform=named), 60)
    shards = [take(episode_pipeline(ROWS, seed=5, transform=named, shard=(i, 3)), 20) for i in range(3)]
    assert [row for turn in zip(*shards, strict=True) for row in turn] == whole
    finite = [list(episode_pipeline(ROWS, seed=5, transform=named, shard=(i, 3), epochs=1)) for i in range(3)]
    assert sorted(numbers(sum(finite, []))) == list(range(23))


def refuse_some(episode, random):
    if int(episode.id) % 5 == 0:
        raise RowError("a multiple of five")
    return named(episode, random)


@pytest.mark.parametrize(("taken", "batch_of"), [(0, None), (17, None), (18, None), (41, None), (1, 4), (9, 4)])
def test_resumed_equals_never_stopped_also_over_epochs(taken, batch_of):
    def fresh():
        return episode_pipeline(ROWS, seed=9, transform=refuse_some, batch_of=batch_of)

    iterator = fresh()
    take(iterator, taken)
    state = json.loads(json.dumps(iterator.get_state()))
    rest = take(iterator, 12)
    resumed = fresh()
    resumed.set_state(state)
    assert take(resumed, 12) == rest
    assert resumed.dropped == iterator.dropped
    # Also backwards, on an iterator that has already run on.
    iterator.set_state(state)
    assert take(iterator, 12) == rest and iterator.dropped == resumed.dropped


def test_refused_rows_are_counted_once_and_move_no_other_row():
    iterator = episode_pipeline(ROWS, seed=3, transform=refuse_some, epochs=2)
    kept = list(iterator)
    everything = list(episode_pipeline(ROWS, seed=3, transform=named, epochs=2))
    assert kept == [row for row in everything if row[0] % 5]
    assert iterator.dropped == Counter({"a multiple of five": 10})


def test_batches_are_lists_and_only_the_last_is_short():
    batches = list(episode_pipeline(ROWS, seed=3, transform=refuse_some, batch_of=4, epochs=1))
    rows = list(episode_pipeline(ROWS, seed=3, transform=refuse_some, epochs=1))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 2] and sum(batches, []) == rows


def test_unshuffled_keeps_the_order():
    assert numbers(episode_pipeline(ROWS, seed=0, transform=named, shuffle=False, epochs=1)) == list(range(23))


def test_other_errors_reach_the_caller():
    def broken(episode, random):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        next(episode_pipeline(ROWS, seed=0, transform=broken))


def test_nothing_usable_ends_with_the_reasons_instead_of_never():
    def refuse(episode, random):
        raise RowError("too long")

    with pytest.raises(UserError, match="23 times: too long"):
        next(episode_pipeline(ROWS, seed=0, transform=refuse))
    with pytest.raises(UserError, match="empty"):
        episode_pipeline([], seed=0, transform=named)


def test_reading_runs_ahead_in_other_threads():
    seen = set()

    def note(episode, random):
        seen.add(threading.current_thread().name)
        return episode.id

    take(episode_pipeline(ROWS, seed=0, transform=note, threads=2), 40)
    assert threading.main_thread().name not in seen


def test_orbax_saves_and_restores_the_iterator(tmp_path):
    from orbax.checkpoint import v1 as ocp

    iterator = episode_pipeline(ROWS, seed=9, transform=refuse_some)
    take(iterator, 25)
    with ocp.training.Checkpointer(tmp_path) as saver:
        saver.save_checkpointables(1, {"data": iterator}, force=True)
        rest = take(iterator, 30)
        fresh = episode_pipeline(ROWS, seed=9, transform=refuse_some)
        restored = saver.load_checkpointables(1, {"data": fresh})["data"]
    assert take(restored, 30) == rest and restored.dropped == iterator.dropped
