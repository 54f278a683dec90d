from m2io_jax.episodes.episode import Placement
from m2io_jax.episodes.labels import imperfect, seeded

GOLD = (Placement(slot=0, picture=2), Placement(slot=2, picture=0), Placement(slot=3, picture=1))


def test_without_drop_and_move_labels_are_gold():
    assert imperfect(GOLD, 3, drop=0, move=0, random=seeded(1, "a")) == GOLD


def test_all_dropped_all_moved():
    assert imperfect(GOLD, 3, drop=1, move=0, random=seeded(1, "a")) == ()
    moved = imperfect(GOLD, 3, drop=0, move=1, random=seeded(1, "a"))
    slots = {placement.picture: placement.slot for placement in moved}
    assert set(slots) == {0, 1, 2} and all(slots[g.picture] != g.slot and 0 <= slots[g.picture] <= 3 for g in GOLD)


def test_shares_are_as_asked_and_moves_reach_every_other_slot():
    dropped, moved, slots = 0, 0, set()
    for row in range(4000):
        labels = imperfect(GOLD[1:2], 3, drop=0.2, move=0.1, random=seeded(7, str(row)))
        dropped += not labels
        if labels and labels[0].slot != 2:
            moved += 1
            slots.add(labels[0].slot)
    # Three standard deviations of a binomial of 4000 draws.
    assert abs(dropped / 4000 - 0.2) < 0.02 and abs(moved / 4000 - 0.1) < 0.015
    assert slots == {0, 1, 3}


def test_draws_depend_on_seed_and_id_alone():
    one = [imperfect(GOLD, 9, drop=0.3, move=0.3, random=seeded(1, str(i))) for i in range(20)]
    again = [imperfect(GOLD, 9, drop=0.3, move=0.3, random=seeded(1, str(i))) for i in reversed(range(20))]
    other = [imperfect(GOLD, 9, drop=0.3, move=0.3, random=seeded(2, str(i))) for i in range(20)]
    assert one == again[::-1] and one != other


def test_ordered_by_slot():
    for row in range(50):
        labels = imperfect(GOLD, 5, drop=0, move=0.7, random=seeded(0, str(row)))
        assert [label.slot for label in labels] == sorted(label.slot for label in labels)
