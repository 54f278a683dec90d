import json
import threading
from collections import Counter
from dataclasses import replace

import pytest

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import Portion, RowError, episode_pipeline
from m2io_jax.errors import UserError

ROWS = [Episode(str(i), "", (), (), (), ()) for i in range(23)]


def pipeline(source, *, transform, **options):
    return episode_pipeline([Portion(source, transform)], **options)


def named(episode, random):
    """The row's number, and a draw of its own."""
    return int(episode.id), int(random.integers(2**40))


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def numbers(rows):
    return [number for number, _ in rows]


def test_each_epoch_has_every_row_once_in_another_order():
    rows = numbers(pipeline(ROWS, seed=1, transform=named, epochs=3))
    epochs = [rows[i : i + 23] for i in (0, 23, 46)]
    assert len(rows) == 69 and all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] and epochs[0] != list(range(23))


def test_same_seed_same_rows_and_draws_whatever_the_threads():
    one = take(pipeline(ROWS, seed=1, transform=named, threads=0), 50)
    assert take(pipeline(ROWS, seed=1, transform=named, threads=8), 50) == one
    assert take(pipeline(ROWS, seed=2, transform=named), 50) != one
    draws = {}
    for number, draw in one:
        draws.setdefault(number, set()).add(draw)
    assert len({draw for _, draw in one}) == 50 and any(len(each) > 1 for each in draws.values())


def test_processes_share_one_stream():
    whole = take(pipeline(ROWS, seed=5, transform=named), 60)
    shards = [take(pipeline(ROWS, seed=5, transform=named, shard=(i, 3)), 20) for i in range(3)]
    assert [row for turn in zip(*shards, strict=True) for row in turn] == whole
    finite = [list(pipeline(ROWS, seed=5, transform=named, shard=(i, 3), epochs=1)) for i in range(3)]
    assert sorted(numbers(sum(finite, []))) == list(range(23))


def refuse_some(episode, random):
    if int(episode.id) % 5 == 0:
        raise RowError("a multiple of five")
    return named(episode, random)


@pytest.mark.parametrize(("taken", "batch_of"), [(0, None), (17, None), (18, None), (41, None), (1, 4), (9, 4)])
def test_resumed_equals_never_stopped_also_over_epochs(taken, batch_of):
    def fresh():
        return pipeline(ROWS, seed=9, transform=refuse_some, batch_of=batch_of)

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
    iterator = pipeline(ROWS, seed=3, transform=refuse_some, epochs=2)
    kept = list(iterator)
    everything = list(pipeline(ROWS, seed=3, transform=named, epochs=2))
    assert kept == [row for row in everything if row[0] % 5]
    assert iterator.dropped == Counter({"a multiple of five": 10})


def test_batches_are_lists_and_only_the_last_is_short():
    batches = list(pipeline(ROWS, seed=3, transform=refuse_some, batch_of=4, epochs=1))
    rows = list(pipeline(ROWS, seed=3, transform=refuse_some, epochs=1))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 2] and sum(batches, []) == rows


def test_unshuffled_keeps_the_order():
    assert numbers(pipeline(ROWS, seed=0, transform=named, shuffle=False, epochs=1)) == list(range(23))


def test_other_errors_reach_the_caller():
    def broken(episode, random):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        next(pipeline(ROWS, seed=0, transform=broken))


def test_nothing_usable_ends_with_the_reasons_instead_of_never():
    def refuse(episode, random):
        raise RowError("too long")

    with pytest.raises(UserError, match="23 times: too long"):
        next(pipeline(ROWS, seed=0, transform=refuse))
    with pytest.raises(UserError, match="empty"):
        pipeline([], seed=0, transform=named)


def test_reading_runs_ahead_in_other_threads():
    seen = set()

    def note(episode, random):
        seen.add(threading.current_thread().name)
        return episode.id

    take(pipeline(ROWS, seed=0, transform=note, threads=2), 40)
    assert threading.main_thread().name not in seen


def tagged(tag):
    """A transform whose rows say which portion they are of; one in five is refused."""

    def transform(episode, random):
        return tag, *refuse_some(episode, random)

    return transform


MIXED = [Portion(ROWS, tagged("a"), 3.0), Portion(ROWS[:7], tagged("b"), 1.0), Portion(ROWS[:11], tagged("c"), 0.5)]


def test_a_mixture_keeps_to_its_weights_at_every_point_and_goes_through_each_source_alike():
    def numbered(number):
        return lambda episode, random: (number, int(episode.id))

    portions = [replace(portion, transform=numbered(number)) for number, portion in enumerate(MIXED)]
    rows = take(episode_pipeline(portions, seed=1), 900)
    for length in (9, 90, 900):
        counts = Counter(number for number, _ in rows[:length])
        assert [counts[number] for number in range(3)] == [length * share // 9 for share in (6, 2, 1)]
    seen = [id for number, id in rows if number == 1]
    assert all(sorted(seen[i : i + 7]) == list(range(7)) for i in range(0, 196, 7)) and seen[:7] != seen[7:14]


def test_a_portion_of_a_mixture_has_the_rows_and_draws_that_it_has_by_itself():
    alone = take(pipeline(ROWS, seed=5, transform=tagged("a")), 40)
    rows = take(episode_pipeline(MIXED, seed=5), 90)
    assert [row for row in rows if row[0] == "a"][:40] == alone


@pytest.mark.parametrize("taken", [0, 1, 17, 60])
def test_a_mixture_resumed_equals_one_never_stopped(taken):
    iterator = episode_pipeline(MIXED, seed=9, batch_of=4)
    take(iterator, taken)
    state = json.loads(json.dumps(iterator.get_state()))
    rest = take(iterator, 12)
    resumed = episode_pipeline(MIXED, seed=9, batch_of=4)
    resumed.set_state(state)
    assert take(resumed, 12) == rest and resumed.dropped == iterator.dropped


def test_every_process_has_the_mixture_and_none_a_row_of_another():
    whole = take(episode_pipeline(MIXED, seed=5), 180)
    shards = [take(episode_pipeline(MIXED, seed=5, shard=(i, 3)), 60) for i in range(3)]
    assert all(abs(Counter(tag for tag, *_ in shard)["a"] - 40) <= 4 for shard in shards)
    for tag in "abc":
        turns = [[row for row in shard if row[0] == tag] for shard in shards]
        together = [row for turn in zip(*turns, strict=False) for row in turn]
        stream = [row for row in whole if row[0] == tag]
        # rows that are refused move the turns, so only what each has is compared
        assert len(set(together)) == len(together) and set(together[:15]) <= set(stream)


def test_a_mixture_with_a_source_that_gives_nothing_says_so_and_goes_on():
    def refuse(episode, random):
        raise RowError("too long")

    iterator = episode_pipeline([Portion(ROWS, named), Portion(ROWS, refuse)], seed=0)
    assert len(take(iterator, 30)) == 30 and iterator.dropped["too long"] >= 29
    with pytest.raises(UserError, match="too long"):
        next(episode_pipeline([Portion(ROWS, refuse), Portion(ROWS, refuse)], seed=0))
    with pytest.raises(UserError, match="empty"):
        episode_pipeline([Portion(ROWS, named), Portion([], named)], seed=0)


def test_orbax_saves_and_restores_the_iterator(tmp_path):
    from orbax.checkpoint import v1 as ocp

    iterator = pipeline(ROWS, seed=9, transform=refuse_some)
    take(iterator, 25)
    with ocp.training.Checkpointer(tmp_path) as saver:
        saver.save_checkpointables(1, {"data": iterator}, force=True)
        rest = take(iterator, 30)
        fresh = pipeline(ROWS, seed=9, transform=refuse_some)
        restored = saver.load_checkpointables(1, {"data": fresh})["data"]
    assert take(restored, 30) == rest and restored.dropped == iterator.dropped
