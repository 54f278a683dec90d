"""Which documents are kept in one split."""

import dataclasses
import itertools
import random

import pytest
from episode_fakes import FakeCorpus, name_of, png

from m2io_jax.corpus.decorations import MANY_PAGES
from m2io_jax.corpus.documents import Document, PictureBlock, TextBlock
from m2io_jax.episodes.building import SPLITS, BuildReport, EpisodeConfig, build_episodes, split_of
from m2io_jax.episodes.groups import COPY, IMAGE, PATH, groups_in_words, join_groups, split_key


def document(source, *pieces, group=None):
    """A document in which a number stands for an image and a string for a paragraph."""
    blocks = [PictureBlock(name_of(png(p)), 1) if isinstance(p, int) else TextBlock(p, 1) for p in pieces]
    id = source.rpartition(".")[0] or source
    return Document(id, id, source, group or id, tuple(blocks))


def joined(*documents):
    """The groups as sets of sources."""
    groups = join_groups(documents)
    members = {}
    for each in documents:
        members.setdefault(groups.of[each.id], set()).add(each.source)
    return sorted(map(sorted, members.values()))


@pytest.mark.parametrize(
    "pages",
    [
        ("README.md", "README.de-DE.md", "README.zh-CN.md", "README_ja.md", "README_CN.md"),
        ("README.md", "README.zh-Hans-CN.md", "readme_zh_tw.md", "README-French.md", "README_EN.md", "README.pt_BR.md"),
        ("en/x.md", "de/x.md", "pt-br/x.md", "zh_Hans/x.md"),
        ("guide/x.md", "guide/x.fr.md", "guide/x-es.md"),
        ("docs/a/x.md", "docs/zh/a/x.md", "zh/docs/a/x.md", "docs-ja/a/x.md"),
        (
            "docs/a/x.md",
            "docs/a/x.mdx",
            "i18n/de/docusaurus-plugin-content-docs/current/a/x.md",
            "i18n/fr/docusaurus-plugin-content-docs/version-1.0/a/x.md",
            "versioned_docs/version-1.0/a/x.md",
            "versioned_docs/version-2.x/a/x.md",
        ),
        (
            "community/x.md",
            "community_versioned_docs/version-3/x.md",
            "i18n/de/docusaurus-plugin-content-docs-community/current/x.md",
        ),
        ("blog/x.md", "i18n/de/docusaurus-plugin-content-blog/x.md"),
        ("content/en/x.md", "content/de/x.md", "content/english/x.md", "content.fr/x.md", "content/french/x.md"),
        ("README.md", "translations/README.ko.md", "translations/fr/README.md", "i18n/README.pt-BR.md"),
        ("v1.0/x.md", "v2.0/x.md", "latest/x.md", "x.md"),
        ("README.md", "docs/README.zh-CN.md", ".github/README_ja.md", "docs/README.german.md"),
        ("docs/x.md", "docs/release-1.2/x.md", "docs/v2.0.0-rc1/x.md", "docs/main/x.md", "docs/nightly/x.md"),
        ("manual_en/x.md", "manual_de/x.md", "manual-pt-BR/x.md"),
        ("docs/en_US/x.md", "docs/zh_CN/x.md", "docs/zh-hans/x.md", "docs/x.md", "docs/简体中文/x.md"),
    ],
)
def test_translations_and_versions_of_a_page_are_one_group(pages):
    others = [document("other/y.md"), document("README/z.md")]
    documents = [document(source) for source in pages]
    assert [len(each) for each in joined(*documents, *others)].count(1) == 2
    assert sorted(pages) in joined(*documents, *others)
    joins = join_groups([*documents, *others]).joins
    assert set(joins) == {PATH} and joins[PATH] <= len(pages) - 1


@pytest.mark.parametrize(
    "pages",
    [
        ("a/README.md", "b/README.md"),
        ("pump.md", "lid.md"),
        ("step-1.md", "step-2.md"),
        ("add-on.md", "add.md"),
        ("german-cars/x.md", "x.md"),
        ("old-german.md", "old.txt/x.md"),
        ("en/x.md", "de/y.md"),
        ("raspberry-pi/x.md", "raspberry/x.md"),
        ("docs/README.md", "README.md"),
        ("1.1/README.md", "1.2/README.md", "2.1/README.md"),
        ("", ""),
    ],
)
def test_other_pages_are_not_joined(pages):
    assert not join_groups([document(p, group=str(i)) for i, p in enumerate(pages)]).joins


def test_parts_of_one_file_are_no_translations():
    parts = [dataclasses.replace(document("en/book.md"), id=f"part{i}", group=f"part{i}") for i in range(5)]
    assert not join_groups(parts).joins
    whole = document("de/book.md")
    assert len(set(join_groups([*parts, whole]).of.values())) == 1


def test_lessons_whose_pages_are_translated_are_joined_whole():
    en = [document(f"en/step_{i}.md", group="en") for i in range(4)]
    fr = [document(f"fr-FR/step_{i}.md", group="fr-FR") for i in range(3)]
    groups = join_groups([*en, *fr])
    assert set(groups.of.values()) == {"en"} and groups.joins == {PATH: 1}
    assert groups.largest == (("en", 7),)


def test_numbered_folders_are_versions_where_titles_are_the_same():
    versions = [dataclasses.replace(document(f"docs/{number}/x.md"), title="Pump") for number in ("1.0", "2.x")]
    pages = [*versions, dataclasses.replace(document("docs/x.md"), title="pump")]
    assert joined(*pages) == [["docs/1.0/x.md", "docs/2.x/x.md", "docs/x.md"]]
    chapters = [document(f"{language}/{i}.{j}/README.md") for i in (1, 2) for j in (1, 2) for language in ("en", "de")]
    assert [len(each) for each in joined(*chapters)] == [2, 2, 2, 2]


def prose(seed, count=300):
    return random.Random(seed).choices([f"word{i}" for i in range(2000)], k=count)


def test_near_identical_texts_are_copies():
    said = prose(1)
    changed = said[:]
    changed[40] = changed[200] = "other"
    pages = [
        document("a.md", " ".join(said)),
        document("b/copy.md", " ".join(changed[:150]), " ".join(changed[150:]).upper()),
        document("half.md", " ".join(said[:150] + prose(2, 150))),
        document("far.md", " ".join(prose(3))),
        document("licence.md", "Do with this what you like, but name its author."),
        document("b/licence.md", "Do with this what you like,\nbut name its author."),
        document("stub.md", "Coming soon."),
        document("stub2.md", "Coming soon."),
        document("empty.md"),
        document("empty2.md"),
    ]
    groups = join_groups(pages)
    assert groups.joins == {COPY: 2}
    assert groups.of["a"] == groups.of["b/copy"] == "a" and groups.of["licence"] == groups.of["b/licence"]


def test_copies_in_scripts_without_spaces_are_found():
    said = "".join(random.Random(5).choices("拧紧螺丝盖子上面打开水泵检查密封圈每年一次更换润滑油", k=200))
    pages = [document("甲.md", said), document("乙.md", said[:100] + "新" + said[100:]), document("丙.md", said[::-1])]
    assert join_groups(pages).joins == {COPY: 1}


def test_pages_that_share_an_image_are_one_group():
    pages = [
        document("anleitung.md", 1, "Text."),
        document("guide.md", "Text.", 2, 1),
        document("z.md", 2),
        document("y.md", 3),
    ]
    assert joined(*pages) == [["anleitung.md", "guide.md", "z.md"], ["y.md"]]
    assert join_groups(pages).joins == {IMAGE: 2}


def test_decorations_and_images_on_very_many_pages_join_nothing():
    badge = dataclasses.replace(document("a.md", 7).blocks[0], decoration="an icon")
    marked = [dataclasses.replace(document(f"p{i}.md"), blocks=(badge,)) for i in range(4)]
    assert not join_groups(marked).joins
    many = [document(f"p{i}.md", 9) for i in range(MANY_PAGES)]
    groups = join_groups(many)
    assert not groups.joins and groups.not_joined == 1
    others = [document(f"q{i}.md") for i in range(MANY_PAGES)]
    assert len(set(join_groups([*many[1:], *others]).of.values())) == 1 + MANY_PAGES
    # The page's translations count once.
    translated = [document(f"{language}/p{i}.md", 9) for i in range(10) for language in ("en", "de", "fr")]
    assert len(set(join_groups(translated).of.values())) == 1


def pages_with_images(images):
    return [document(f"p{i}.md", f"Text {i}.", *each) for i, each in enumerate(images)]


SHARING = {
    "each page shares an image with the next": [(i, i + 1) for i in range(60)],
    "one page shows all images": [(i,) for i in range(60)] + [tuple(range(60))],
    "pages share images at random": [tuple(random.Random(i).sample(range(60), 4)) for i in range(60)],
    "small": [(i // 3,) for i in range(30)],
}


@pytest.mark.parametrize("name", SHARING)
def test_shared_images_neither_join_all_pages_nor_leak(name):
    pages = pages_with_images(SHARING[name])
    groups = join_groups(pages)
    assert max(size for _, size in groups.largest) <= len(pages) / 2
    assert (groups.not_joined > 0) == (name != "small")
    files = {name_of(png(i)): png(i) for i in range(61)}
    report, config = BuildReport(), EpisodeConfig(train=0.4, validation=0.2, empty=0)
    split_of_image, offered = {}, {split: set() for split in SPLITS}
    for episode in build_episodes(FakeCorpus(tuple(pages), (), files), None, config, report=report):
        split = split_of(episode.group, config)
        offered[split].update(candidate.picture for candidate in episode.candidates)
        for placement in episode.gold:
            assert split_of_image.setdefault(episode.candidates[placement.picture].picture, split) == split
    assert len(set(split_of_image.values())) > 1
    assert not any(offered[one] & offered[other] for one, other in itertools.combinations(SPLITS, 2))
    lost = report.dropped["its gold pictures stand in documents of another split too"]
    assert sum(report.episodes.values()) + sum(report.dropped.values()) == len(pages)
    assert bool(lost) == (name == "pages share images at random")


def test_groups_do_not_depend_on_the_order_and_keep_their_names():
    pages = [document(f"{language}/p{i}.md", i // 3) for i in range(12) for language in ("en", "de")]
    first = join_groups(pages).of
    random.Random(0).shuffle(pages)
    assert join_groups(pages).of == first and first["en/p0"] == "de/p0"
    assert join_groups([document("p.md"), document("q.md")]).of == {"p": "p", "q": "q"}


def test_no_image_is_gold_in_two_splits():
    """Thirty pages in four languages, whose images are the same."""
    files = {name_of(png(i)): png(i) for i in range(30)}
    pages = tuple(
        document(f"p{i}/README{tag}.md", f"Text {i}.", i) for i in range(30) for tag in ("", ".de", ".fr-FR", "_es")
    )
    report, config = BuildReport(), EpisodeConfig(train=0.6, validation=0.1, empty=0)
    corpus = FakeCorpus(pages, (), files)
    split_of_image = {}
    for episode in build_episodes(corpus, None, config, report=report):
        for placement in episode.gold:
            split = split_of(episode.group, config)
            assert split_of_image.setdefault(episode.candidates[placement.picture].picture, split) == split
    assert set(split_of_image.values()) >= {"train", "test"} and sum(report.episodes.values()) == 120
    assert report.groups["documents"] == 120 and report.groups["groups"] == 30
    assert report.groups["joins"] == {PATH: 90}


def test_what_was_joined_and_which_split_is_empty_is_told():
    groups = join_groups([document("en/x.md"), document("de/x.md"), document("y.md")]).to_json()
    told = "\n".join(groups_in_words(groups, {"train": 5, "validation": 0, "test": 2}))
    assert f"3 documents are 2 groups, each in one split; joined: 1 by {PATH}" in told
    assert "the largest: de/x with 2 documents" in told and "no episode in validation: there are 2 groups" in told
    one = join_groups([document("en/x.md"), document("de/x.md")]).to_json()
    assert "no episode in test: all documents are one group" in groups_in_words(one, {"train": 5, "test": 0})[1]
    assert groups_in_words(join_groups([document("x.md")]).to_json(), {"train": 1}) == []


@pytest.mark.parametrize("source", ["", ".md", "///", "a" * 5000 + "/x.md", "en/" * 500 + "x.md"])
def test_odd_paths_have_a_key(source):
    assert isinstance(split_key(source), str)
