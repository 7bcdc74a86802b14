"""Servers with OpenAI's interface for chats (vLLM, llama.cpp, Ollama, TGI, hosted ones) as translators."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import IO, Any

from xvlm2vec.corpus.rows import ENGLISH

from .chat import answer_text, check_languages, messages
from .chat_model import zip_answers
from .engine import Answer
from .judging import accepted

KEY = "OPENAI_API_KEY"
"""The environment's variable that holds the key, if the server wants one."""
_LONGEST = 4_000_000
"""Bytes of an answer that are read."""
_TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
_HOPELESS = {401, 403, 404, 405}
"""What a server answers to every text alike."""
_LONGEST_WAIT = 30.0


class ServerError(ConnectionError):
    """The server cannot be used at all: it is not there, or takes neither the key nor the model."""


class _Fault(Exception):
    """What went wrong with one text; it may go well another time."""


class _Unreachable(_Fault):
    """Nobody answered."""


class ChatServer:
    """A chat model behind `/chat/completions`, asked for many texts at the same time.

    A text that gets no translation is a failure with its reason, and all others go on: errors of the server, answers
    that are no JSON, and refusals, chatter and other faults that the rules of `corpus check` find. What failed is
    tried again by the next run.

    Args:
        address: What stands before `/chat/completions`, such as `http://localhost:8000/v1`.
        model: The model's name there.
        batch_size: Texts that are asked for at the same time.
        max_new_tokens: Most tokens of an answer.
        attempts: How often a text is tried.
        wait: Seconds before the second attempt; each further one waits twice as long, or as long as the server says.
        seconds: For how long an answer is awaited.

    Raises:
        ValueError: The address is none of the web, or holds a password; or the key cannot be sent.
    """

    asks_again = True

    def __init__(
        self,
        address: str,
        model: str,
        batch_size: int = 32,
        max_new_tokens: int = 256,
        attempts: int = 3,
        wait: float = 1.0,
        seconds: float = 300.0,
    ) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{address!r} is no address of a server, such as http://localhost:8000/v1.")
        if "@" in parts.netloc or parts.query:
            raise ValueError(f"an address must hold no password or key; put the key into {KEY}.")
        self.address, self.model = address.rstrip("/").removesuffix("/chat/completions"), model
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.attempts, self.wait, self.seconds = attempts, wait, seconds
        self._key = os.environ.get(KEY, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError(f"{KEY} holds letters that no key has.")
        self._opener = urllib.request.build_opener(_NoRedirects)

    def check(self, languages: Sequence[str]) -> None:
        """Checks that there are such languages; whether the model speaks them only its answers tell."""
        check_languages(list(languages))

    def translate(self, texts: Sequence[str], language: str, source: str = ENGLISH) -> Iterator[Answer]:
        """See `Engine`.

        Raises:
            ServerError: Nobody answers a whole batch, or the key or the model is not taken.
        """
        with ThreadPoolExecutor(self.batch_size) as pool:
            for start in range(0, len(texts), self.batch_size):
                part = list(texts[start : start + self.batch_size])
                said = list(pool.map(lambda text: self._answer(messages(text, language, source)), part))
                if all(isinstance(one, _Unreachable) for one in said):
                    raise ServerError(f"{self.address}: {said[0]}. The same command goes on from here.")
                numbers = range(start, start + len(part))
                yield from zip_answers(numbers, self._judged(part, said, language))

    def _judged(
        self, texts: Sequence[str], said: Sequence[str | _Fault], language: str
    ) -> list[tuple[str | None, str]]:
        good = [number for number, one in enumerate(said) if isinstance(one, str)]
        results: list[tuple[str | None, str]] = [(None, str(one)) for one in said]
        answers = [answer_text(str(said[number]), texts[number]) for number in good]
        found = accepted([texts[number] for number in good], answers, language)
        for number, result in zip(good, found, strict=True):
            results[number] = result
        return results

    def _answer(self, conversation: list[dict[str, str]]) -> str | _Fault:
        """What the model says, or what went wrong the last time that it was asked."""
        body = {"model": self.model, "messages": conversation, "temperature": 0, "max_tokens": self.max_new_tokens}
        wait = self.wait
        for attempt in range(self.attempts):
            try:
                return self._said(json.loads(self._post(json.dumps(body).encode())))
            except urllib.error.HTTPError as error:
                told = f"the server answered {error.code}{self._quoted(error)}"
                if error.code in _HOPELESS:
                    hint = f" (the key is read from {KEY})" if error.code in {401, 403} else ""
                    raise ServerError(f"{self.address}: {told}{hint}") from None
                fault, again = _Fault(told), error.code in _TRY_AGAIN
                wait = _asked_wait(error.headers.get("Retry-After"), wait)
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                fault, again = _Unreachable(f"no answer ({reason or type(error).__name__})"), True
            except ValueError as error:  # the body is no JSON, or none of a chat
                fault, again = _Fault(f"the server did not answer as a chat does: {error}"), False
            if not again or attempt == self.attempts - 1:
                break
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        return fault

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self.address}/chat/completions", body, headers)
        with self._opener.open(request, timeout=self.seconds) as response:
            content: bytes = response.read(_LONGEST)
            kind = response.headers.get_content_type()
        if kind == "text/html" or content.lstrip()[:1] == b"<":
            raise ValueError(f"{kind}, {self._shown(content)}")
        return content

    def _said(self, content: Any) -> str:
        """The text of an answer.

        Raises:
            ValueError: There is none, or it is cut off.
        """
        try:
            choice = content["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ValueError(self._shown(json.dumps(content).encode())) from None
        if reason == "length":
            raise ValueError(f"the answer was not at its end after {self.max_new_tokens} tokens")
        if not isinstance(text, str):
            raise ValueError(f"no text (finish_reason {reason!r})")
        return text

    def _quoted(self, error: urllib.error.HTTPError) -> str:
        try:
            content = error.read(_LONGEST)
        except (OSError, HTTPException):
            return ""
        return f": {self._shown(content)}" if content else ""

    def _shown(self, content: bytes) -> str:
        """The beginning of an answer on one line, without the key, which some servers repeat."""
        text = " ".join(content.decode("utf-8", "replace").split())
        return repr((text.replace(self._key, "***") if self._key else text)[:100])


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key is for one server, and not for where that one points."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Follows none."""
        return None


def _asked_wait(header: str | None, otherwise: float) -> float:
    """The seconds for which a server asks, within reason."""
    return min(float(header), _LONGEST_WAIT) if header and header.isdigit() else otherwise
