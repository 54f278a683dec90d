import json
import threading
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import Portion, episode_pipeline
from m2io_jax.errors import RowError, UserError

ROWS = [Episode(str(i), "", (), (), (), ()) for i in range(23)]


def pipeline(source, *, transform, batch_of=1, **options):
    return episode_pipeline([Portion(source, transform)], batch_of=batch_of, **options)


def named(episode, random):
    """The row's number, and a draw of its own."""
    return int(episode.id), int(random.integers(2**40))


def take(iterator, count):
    return list(islice(iterator, count))


def batches(iterator, count, of):
    return [take(iterator, of) for _ in range(count)]


def numbers(rows):
    return [number for number, _ in rows]


def test_each_epoch_has_every_row_once_in_another_order():
    rows = numbers(take(pipeline(ROWS, seed=1, transform=named), 69))
    epochs = [rows[i : i + 23] for i in (0, 23, 46)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] and epochs[0] != list(range(23))


def test_same_seed_same_rows_and_draws_whatever_the_threads():
    one = take(pipeline(ROWS, seed=1, transform=named, threads=0), 50)
    assert take(pipeline(ROWS, seed=1, transform=named, threads=8), 50) == one
    assert take(pipeline(ROWS, seed=2, transform=named), 50) != one
    draws = {}
    for number, draw in one:
        draws.setdefault(number, set()).add(draw)
    assert len({draw for _, draw in one}) == 50 and any(len(each) > 1 for each in draws.values())


def refuse_some(episode, random):
    if int(episode.id) % 5 == 0:
        raise RowError("a multiple of five")
    return named(episode, random)


def joined(shards):
    """The whole batches, of the parts that processes read."""
    return [sum(parts, []) for parts in zip(*shards, strict=True)]


@pytest.mark.parametrize("transform", [named, refuse_some])
def test_processes_share_the_same_batches_however_many_they_are(transform):
    def read(index, count):
        return batches(pipeline(ROWS, seed=5, transform=transform, batch_of=4, shard=(index, count)), 20, 4 // count)

    whole = read(0, 1)
    for count in (2, 4):
        assert joined([read(index, count) for index in range(count)]) == whole
    assert sum(whole, []) == take(pipeline(ROWS, seed=5, transform=transform), 80)


def test_resumed_by_another_number_of_processes_no_row_is_lost_or_doubled():
    def fresh(index, count):
        return pipeline(ROWS, seed=9, transform=refuse_some, batch_of=4, shard=(index, count))

    whole = batches(fresh(0, 1), 30, 4)
    before = [fresh(index, 4) for index in range(4)]
    found = joined([batches(each, 7, 1) for each in before])
    for count, more in ((1, 6), (2, 8), (4, 9)):
        state = json.loads(json.dumps(before[0].get_state()))
        assert state["rows"] == 4 * len(found)
        before = [fresh(index, count) for index in range(count)]
        for each in before:
            each.set_state(state)
        found += joined([batches(each, more, 4 // count) for each in before])
    assert found == whole


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(UserError, match="4 rows cannot be shared out evenly to 3 processes"):
        pipeline(ROWS, seed=0, transform=named, batch_of=4, shard=(0, 3))


@pytest.mark.parametrize("taken", [0, 17, 18, 41])
def test_resumed_equals_never_stopped_also_over_epochs(taken):
    def fresh():
        return pipeline(ROWS, seed=9, transform=refuse_some, batch_of=4)

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
    iterator = pipeline(ROWS, seed=3, transform=refuse_some)
    rows, everything = take(iterator, 46), take(pipeline(ROWS, seed=3, transform=named), 46)
    replaced = [number % 5 == 0 for number in numbers(everything)]
    assert sum(replaced) == 10 and all(number % 5 for number in numbers(rows))
    for row, other, spare in zip(rows, everything, replaced, strict=True):
        assert spare or row == other
    # the five refused in each epoch, and those of the spares that stood before the ones taken
    assert iterator.dropped["a multiple of five"] == sum(iterator.dropped.values()) >= 10


def test_every_spare_of_an_epoch_is_tried_before_it_is_given_up():
    def only_one(episode, random):
        if episode.id != "7":
            raise RowError("not seven")
        return episode.id

    assert take(pipeline(ROWS, seed=4, transform=only_one), 40) == ["7"] * 40


def test_other_errors_reach_the_caller():
    def broken(episode, random):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        next(pipeline(ROWS, seed=0, transform=broken))


def test_nothing_usable_ends_with_the_reasons_instead_of_never():
    def refuse(episode, random):
        raise RowError("too long")

    with pytest.raises(UserError, match="24 times: too long"):  # an epoch of spares, after the row itself
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
    rows = take(episode_pipeline(portions, seed=1, batch_of=9), 900)
    for length in (9, 90, 900):
        counts = Counter(number for number, _ in rows[:length])
        assert [counts[number] for number in range(3)] == [length * share // 9 for share in (6, 2, 1)]
    seen = [id for number, id in rows if number == 1]
    assert all(sorted(seen[i : i + 7]) == list(range(7)) for i in range(0, 196, 7)) and seen[:7] != seen[7:14]


def test_a_portion_of_a_mixture_has_the_rows_and_draws_that_it_has_by_itself():
    alone = take(pipeline(ROWS, seed=5, transform=named), 40)
    rows = take(episode_pipeline([Portion(ROWS, named), Portion(ROWS, lambda *_: None)], seed=5, batch_of=2), 80)
    assert [row for row in rows if row is not None] == alone


@pytest.mark.parametrize("taken", [0, 1, 17, 60])
def test_a_mixture_resumed_equals_one_never_stopped(taken):
    iterator = episode_pipeline(MIXED, seed=9, batch_of=4)
    take(iterator, taken)
    state = json.loads(json.dumps(iterator.get_state()))
    rest = take(iterator, 12)
    resumed = episode_pipeline(MIXED, seed=9, batch_of=4)
    resumed.set_state(state)
    assert take(resumed, 12) == rest and resumed.dropped == iterator.dropped


def test_processes_share_the_batches_of_a_mixture():
    whole = batches(episode_pipeline(MIXED, seed=5, batch_of=6), 30, 6)
    shards = [batches(episode_pipeline(MIXED, seed=5, batch_of=6, shard=(i, 3)), 30, 2) for i in range(3)]
    assert joined(shards) == whole


def test_a_mixture_with_a_source_that_gives_nothing_says_so_and_goes_on():
    def refuse(episode, random):
        raise RowError("too long")

    iterator = episode_pipeline([Portion(ROWS, named), Portion(ROWS, refuse)], seed=0, batch_of=2)
    assert len(take(iterator, 30)) == 30 and iterator.dropped["too long"] >= 15
    with pytest.raises(UserError, match="too long"):
        next(episode_pipeline([Portion(ROWS, refuse), Portion(ROWS, refuse)], seed=0, batch_of=1))
    with pytest.raises(UserError, match="empty"):
        episode_pipeline([Portion(ROWS, named), Portion([], named)], seed=0, batch_of=1)
