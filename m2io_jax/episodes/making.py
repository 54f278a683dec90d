"""From a corpus folder and its index to a data set of episodes: what the command `m2io episodes` does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.building import SPLITS, BuildReport, EpisodeConfig, build_episodes
from m2io_jax.episodes.dataset import read_manifest, write_episodes
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.groups import join_groups
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
        UserError: as `build_episodes` and `write_episodes`.
    """
    report = BuildReport()
    groups = join_groups(corpus.documents)

    def rows(split: str) -> Iterator[Episode]:
        for episode in build_episodes(corpus, retriever, config, report=report, splits=(split,), groups=groups):
            if on_episode:
                on_episode(episode)
            yield episode

    def provenance() -> dict[str, Any]:
        return {
            "corpus": {"path": str(corpus.path), "name": corpus.name, "fingerprint": fingerprint(corpus)},
            "index": None if retriever is None else retriever.manifest,
            "config": asdict(config),
            "report": report.to_json(),
        }

    write_episodes({split: rows(split) for split in splits}, out_dir, provenance)
    return read_manifest(out_dir)
