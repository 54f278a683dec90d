"""Answering question after question, and the server that docs/serving.md shows."""

import re
import socket
import threading
from http.server import HTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest

from m2io_jax.corpus.importing import import_kitchen
from m2io_jax.corpus.kitchen import KitchenConfig
from m2io_jax.corpus.store import Corpus
from m2io_jax.errors import UserError
from m2io_jax.retrieval.search import build_index, index_folder
from m2io_jax.serving import command

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """A few recipes with their index."""
    folder = tmp_path_factory.mktemp("serving") / "kitchen"
    import_kitchen(KitchenConfig(documents=5), folder)
    build_index(Corpus.open(folder), index_folder(folder))
    return folder


@pytest.fixture(scope="module")
def question(kitchen):
    return Corpus.open(kitchen).questions[0].question


def test_documents_are_read_once_for_all_questions(kitchen, question, monkeypatch):
    opened, really = [], Corpus.open
    monkeypatch.setattr(command.Corpus, "open", lambda path: opened.append(path) or really(path))
    answer = command.answerer(corpus=kitchen, inserter="match")
    first, again = answer(question), answer(question)
    assert opened == [kitchen]
    assert first.question == question and first == again == command.ask(question, corpus=kitchen, inserter="match")
    with pytest.raises(UserError, match="empty"):
        answer("  ")


def test_an_inserter_that_there_is_not_is_refused(kitchen):
    with pytest.raises(UserError, match="clever"):
        command.answerer(corpus=kitchen, inserter="clever")


@pytest.fixture
def address(kitchen, monkeypatch):
    """Where the server of docs/serving.md listens; it answers by the rule, from a few recipes."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    made, really = [], command.answerer
    monkeypatch.setattr(command, "answerer", lambda run: really(corpus=kitchen, inserter="match"))
    monkeypatch.setattr(HTTPServer, "serve_forever", lambda self: made.append(self.RequestHandlerClass))
    code, found = re.subn(r"8000\b", "0", code)  # any port that is free
    assert found == 1
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})
    monkeypatch.undo()
    made[0].log_message = lambda *_: None
    with HTTPServer(("127.0.0.1", 0), made[0]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_server_of_the_documentation_answers(kitchen, question, address):
    assert "<form>" in urlopen(address).read().decode()
    page = urlopen(f"{address}?{urlencode({'q': question})}").read().decode()
    assert "<h1>" in page and "data:image/" in page
    page = urlopen(f"{address}?{urlencode({'q': f'{question} <b>'})}").read().decode()
    assert "&lt;b&gt;" in page and "<b>" not in page
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{address}?{urlencode({'q': 'zzz qqq <b>'})}")
    said = refused.value.read().decode()
    assert refused.value.code == 404 and "No passage" in said and str(kitchen) not in said


def test_the_server_of_the_documentation_is_held_up_by_nobody(address):
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port)) as silent:
        assert "<form>" in urlopen(address, timeout=30).read().decode()
        silent.settimeout(30)
        assert silent.recv(1) == b"", "it was closed"
    with socket.create_connection((place.hostname, place.port), timeout=30) as odd:
        odd.sendall(b"GET http://[ HTTP/1.0\r\n\r\n")
        assert odd.recv(100).startswith(b"HTTP/1.0 200")
