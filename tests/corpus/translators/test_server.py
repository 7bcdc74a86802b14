"""A real HTTP server that misbehaves as servers do: one text's trouble is no other's."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from datasets import Dataset

from xvlm2vec.cli import main
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import load_parallel
from xvlm2vec.corpus.translators.server import KEY, ChatServer, ServerError

SAID = {
    "a red dog": "ein roter Hund",
    "rain": "\"Regen\"",
    "the sun is here": "<think>Sun is Sonne.</think>\nDie Sonne ist hier",
    "a small house": "Sure, here is the translation: ein kleines Haus",
    "a secret recipe": "I cannot translate this text.",
    "a long long story": ("eine lange", "length"),
    "nothing at all": (None, "content_filter"),
    "busy once": "einmal besetzt",
    "never": 500,
    "a web page": "<html><body>Bad gateway</body></html>",
    "no chat": {"ok": True},
    "elsewhere": 302,
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.authorization.add(self.headers.get("Authorization"))
        text = body["messages"][-1]["content"].rpartition("\n\n")[2]
        self.server.asked[text] += 1
        said = SAID[text]
        if self.server.refuses_key:
            self.reply(401, f"wrong key {self.headers.get('Authorization')}")
        elif said in (500, 302) or (text == "busy once" and self.server.asked[text] == 1):
            self.reply(503 if text == "busy once" else said, "overloaded", Location="/v1/chat/completions")
        elif isinstance(said, dict):
            self.reply(200, json.dumps(said))
        elif isinstance(said, str) and said.startswith("<html"):
            self.reply(200, said, "text/html")
        else:
            content, reason = said if isinstance(said, tuple) else (said, "stop")
            choice = {"message": {"role": "assistant", "content": content}, "finish_reason": reason}
            self.reply(200, json.dumps({"choices": [choice]}))

    def reply(self, status, text, kind="application/json", **headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(text.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(KEY, "key-of-the-test")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.asked, http.authorization, http.refuses_key = Counter(), set(), False
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        http.address = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield http
        http.shutdown()
        thread.join()


def test_each_text_has_its_translation_or_its_reason(server):
    texts = list(SAID)
    engine = ChatServer(server.address, "tiny", batch_size=4, wait=0.0)
    found = {texts[number]: (text, problem) for number, text, problem in engine.translate(texts, "de")}
    good = {text: translation for text, (translation, _) in found.items() if translation is not None}
    assert good == {
        "a red dog": "ein roter Hund",
        "rain": "Regen",
        "the sun is here": "Die Sonne ist hier",
        "a small house": "ein kleines Haus",
        "busy once": "einmal besetzt",
    }
    reasons = {text: problem for text, (translation, problem) in found.items() if translation is None}
    for text, reason in {
        "a secret recipe": "refusal: ",
        "a long long story": "not at its end after 256 tokens",
        "nothing at all": "no text (finish_reason 'content_filter')",
        "never": "the server answered 500: 'overloaded'",
        "a web page": "text/html, '<html><body>Bad gateway",
        "no chat": """'{"ok": true}'""",
        "elsewhere": "the server answered 302",
    }.items():
        assert reason in reasons.pop(text)
    assert not reasons
    assert server.asked["never"] == 3
    assert server.asked["busy once"] == 2
    assert server.authorization == {"Bearer key-of-the-test"}


def test_a_server_that_takes_no_key_stops_the_run_and_the_key_is_not_shown(server, caplog):
    server.refuses_key = True
    with caplog.at_level(logging.DEBUG), pytest.raises(ServerError, match=f"answered 401.*read from {KEY}") as caught:
        list(ChatServer(server.address, "tiny", wait=0.0).translate(["rain"], "de"))
    assert "***" in str(caught.value)
    assert "key-of-the-test" not in str(caught.value) + caplog.text


def test_a_server_that_is_not_there_stops_the_run(server):
    engine = ChatServer("http://127.0.0.1:9/v1", "tiny", wait=0.0)
    with pytest.raises(ServerError, match=r"no answer \(.*The same command goes on"):
        list(engine.translate(["rain", "a red dog"], "de"))


@pytest.mark.parametrize(("address", "key", "fault"), [
    ("localhost:8000", "", "no address of a server"),
    ("http://me:secret@localhost/v1", "", "must hold no password"),
    ("http://localhost/v1", "two\nlines", "letters that no key has"),
])  # fmt: skip
def test_addresses_and_keys_that_cannot_be_used(address, key, fault, monkeypatch):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(ValueError, match=fault) as caught:
        ChatServer(address, "tiny")
    assert "secret" not in str(caught.value)
    assert "two" not in str(caught.value)


def test_the_command_goes_on_where_it_stopped_and_asks_again_for_failures_only(server, tmp_path, capsys):
    row = {"image": None, "translations": [], "source": "t"}
    texts = ["a red dog", "<|image_1|>\nbusy once", "a web page"]
    rows = [{"id": str(number), "text_en": text, **row} for number, text in enumerate(texts)]
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(tmp_path / "english")
    command = ["translate", str(tmp_path / "english"), "--server", server.address, "--server-model", "tiny"]
    command += ["--languages", "de", "--output", str(tmp_path / "out")]

    assert main(command) == 1
    report = json.loads((tmp_path / "out" / "untranslated.json").read_text())
    assert [(fault["id"], fault["language"]) for fault in report["bad_texts"]] == [("2", "de")]
    assert load_parallel(tmp_path / "out" / "parallel")[1]["translations"] == [
        {"lang": "de", "text": "<|image_1|>\neinmal besetzt"}
    ]
    assert "key-of-the-test" not in "".join(
        path.read_text() for path in (tmp_path / "out").rglob("*.json*") if path.is_file()
    )

    SAID["a web page"] = "eine Webseite"
    try:
        assert main(command) == 0
    finally:
        SAID["a web page"] = "<html><body>Bad gateway</body></html>"
    assert "translated texts: de 3" in capsys.readouterr().out
    assert server.asked == {"a red dog": 1, "busy once": 2, "a web page": 2}
