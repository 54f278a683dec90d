"""From a corpus folder and its index to a data set of episodes: what the command `m2io episodes` does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m2io_jax.corpus.documents import PictureBlock, is_illustration
from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.building import SPLITS, BuildReport, EpisodeConfig, build_episodes
from m2io_jax.episodes.dataset import read_manifest, write_episodes
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.groups import join_groups
from m2io_jax.errors import UserError
from m2io_jax.retrieval.search import Retriever, fingerprint


def make_episodes(
    corpus: Corpus,
    retriever: Retriever | None,
    out_dir: str | Path,
    config: EpisodeConfig,
    *,
    splits: Sequence[str] = SPLITS,
    on_episode: Callable[[Episode], None] | None = None,
) -> dict[str, Any]:
    """Builds and writes episodes; returns what `episodes.json` holds. `on_episode` is called for each (progress).

    Its keys: format, version, made, episodes (by split), corpus (path, name, fingerprint), index (the retrieval
    manifest or None), config, report (as `BuildReport`).

    Raises:
        UserError: as `build_episodes` and `write_episodes`; and no row makes an episode, with the reasons.
    """
    report = BuildReport()
    groups = join_groups(corpus.documents)
    read: set[str] = set()

    def rows(split: str) -> Iterator[Episode]:
        for episode in build_episodes(corpus, retriever, config, report=report, splits=(split,), groups=groups):
            if on_episode:
                on_episode(episode)
            yield episode
        read.add(split)

    def provenance() -> dict[str, Any]:
        return {
            "corpus": {"path": str(corpus.path), "name": corpus.name, "fingerprint": fingerprint(corpus)},
            "index": None if retriever is None else retriever.manifest,
            "config": asdict(config),
            "report": report.to_json(),
        }

    try:
        write_episodes({split: rows(split) for split in splits}, out_dir, provenance)
    except UserError as error:
        if report.episodes.total() or read != set(splits):
            raise
        raise _no_episode(corpus, report) from error
    return read_manifest(out_dir)


def _no_episode(corpus: Corpus, report: BuildReport) -> UserError:
    """Return the error that says why a corpus makes no episode."""
    blocks = [block for document in corpus.documents for block in document.blocks if isinstance(block, PictureBlock)]
    reasons = [f"{count:,} because {reason}" for reason, count in report.dropped.items()]
    if not any(map(is_illustration, blocks)):
        reasons.append(f"all {len(blocks):,} images are decorations" if blocks else "the corpus has no image")
    what = f"The corpus makes no episode: {'; '.join(reasons) or 'it has no text beside an image'}."
    return UserError(what, where=str(corpus.path), mend="Import documents whose images stand in their text.")
