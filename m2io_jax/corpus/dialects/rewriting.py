"""All rewriting of dialects, in the order in which it is done. Dialects may be mixed in one text."""

from m2io_jax.corpus.dialects.chunks import open_chunk
from m2io_jax.corpus.dialects.containers import Opener, unfold
from m2io_jax.corpus.dialects.directives import MYST_SIGN, open_colons, open_directive, open_myst_line, open_rest
from m2io_jax.corpus.dialects.jsx import is_mdx, rewrite_jsx
from m2io_jax.corpus.dialects.liquid import fill_in, substitutions, without_comments
from m2io_jax.corpus.dialects.material import open_admonition, open_block, open_definition, open_footnote, open_tab
from m2io_jax.corpus.dialects.shortcodes import unfold_shortcodes
from m2io_jax.corpus.dialects.source import Source
from m2io_jax.corpus.dialects.wiki import without_vault_comments

OPENERS: tuple[Opener, ...] = (
    open_chunk,
    open_directive,
    open_colons,
    open_admonition,
    open_tab,
    open_block,
    open_rest,
    open_footnote,
    open_definition,
)


def rewrite(text: str, whole: str) -> Source:
    """Rewrite a text's dialects as Markdown and HTML.

    Args:
        text: the text, in which empty lines stand for its front matter.
        whole: the text with its front matter, which may name values.
    """
    source = without_vault_comments(without_comments(Source(text, mdx=is_mdx(text))))
    openers = (*OPENERS, open_myst_line) if MYST_SIGN.search(text) else OPENERS
    source = unfold(source, openers)
    source = fill_in(source, substitutions(whole))
    return rewrite_jsx(unfold_shortcodes(source))
