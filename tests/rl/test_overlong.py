import numpy as np
import pytest

from m2io_jax.rl.rewards import is_terminated, soft_overlong_penalty


def test_with_the_numbers_of_dapo():
    lengths = np.array([0, 16384, 16385, 18432, 20479, 20480])
    penalty = soft_overlong_penalty(lengths, max_length=20480, buffer=4096)
    np.testing.assert_allclose(penalty, [0, 0, -1 / 4096, -0.5, -4095 / 4096, -1], atol=1e-7)


@pytest.mark.parametrize("buffer", [1, 10])
def test_the_penalty_never_leaves_its_range(buffer):
    penalty = np.asarray(soft_overlong_penalty(np.arange(11), max_length=10, buffer=buffer))
    assert penalty[0] == 0 and penalty[10] == -1 and (np.diff(penalty) <= 0).all()
    assert penalty[9] == (0 if buffer == 1 else np.float32(-0.9))


def test_finished_is_who_came_to_the_stop_token_itself():
    tokens = np.array([[5, 2, 2], [5, 6, 7], [5, 6, 2], [2, 0, 0], [5, 6, 2]])
    mask = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 0]], bool)
    # the last one's stop token is padding
    assert np.asarray(is_terminated(tokens, mask, (2,))).tolist() == [True, False, True, True, False]
    assert np.asarray(is_terminated(tokens, mask, (2, 7))).tolist() == [True, True, True, True, False]
