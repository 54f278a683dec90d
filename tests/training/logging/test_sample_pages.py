"""Samples as pages in the run's folder."""

from dataclasses import replace

from m2io_jax.training.logging.sample_pages import SamplePages


def test_a_page_a_step_and_none_of_steps_that_are_made_again(tmp_path, samples):
    pages = SamplePages(tmp_path / "samples")
    pages.truncate_after(0)  # nothing is there yet
    for step in (1, 50, 100):
        pages.show(replace(samples, step=step))
    (tmp_path / "samples" / "notes.html").write_text("mine")
    assert (tmp_path / "samples" / "50.html").read_text() == replace(samples, step=50).page
    pages.truncate_after(50)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["1.html", "50.html", "notes.html"]
