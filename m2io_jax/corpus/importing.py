"""Everything that fills a corpus folder: one function a source."""

from pathlib import Path

from rich.console import Console
from rich.progress import track

from m2io_jax.corpus.documents import PictureBlock
from m2io_jax.corpus.kitchen import KitchenConfig, generate
from m2io_jax.corpus.markdown import MarkdownSettings, import_markdown
from m2io_jax.corpus.report import REPORT_FILE, ImportReport
from m2io_jax.corpus.store import CorpusWriter

__all__ = ["MarkdownSettings", "import_kitchen", "import_markdown"]


def import_kitchen(config: KitchenConfig, out: str | Path) -> ImportReport:
    """Draws the kitchen that `config` describes and writes it as a corpus to folder `out`, with its report.

    Raises:
        UserError: the output holds something that is not a corpus, or cannot be written.
    """
    report = ImportReport(source="kitchen")
    console = Console(stderr=True)
    with CorpusWriter(out, name="kitchen") as writer:
        dishes = generate(config)
        for dish in track(dishes, "Drawing", console=console, disable=not console.is_terminal, transient=True):
            for hash, data in dish.pictures.items():
                if writer.add_picture(data, extension="png") != hash:
                    raise ValueError(f"the picture named {hash} has another content")
            writer.add_document(dish.document)
            for question in dish.questions:
                writer.add_question(question)
            report.documents += 1
            report.kept += sum(isinstance(block, PictureBlock) for block in dish.document.blocks)
        writer.add_file(REPORT_FILE, report.text())
    return report
