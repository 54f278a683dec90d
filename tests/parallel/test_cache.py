"""Where compiled programs are kept."""

from pathlib import Path

from m2io_jax.parallel.cache import VARIABLE, keep_programs, processor


def test_programs_are_kept_in_the_users_cache_by_what_the_processor_can_do():
    environment = {"XDG_CACHE_HOME": "/somewhere"}
    keep_programs(environment)
    assert Path(environment[VARIABLE]) == Path("/somewhere/m2io_jax/compiled") / processor()


def test_who_names_a_folder_is_heeded():
    environment = {VARIABLE: "/mine"}
    keep_programs(environment)
    assert environment == {VARIABLE: "/mine"}
