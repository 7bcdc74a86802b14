"""What the Hub's client raises, as messages that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from .staging import ExportError

TOKENS_PAGE = "https://huggingface.co/settings/tokens"
_AGAIN = "run the same command again; files that went over whole are not sent twice."
_ADVICE = {
    401: f"the token was not accepted; make a new one on {TOKENS_PAGE}, then run `hf auth login`, or set HF_TOKEN.",
    403: f"the token may not do that; give it the right to write there on {TOKENS_PAGE}.",
    404: "there is no such repository or revision, or the token may not see it.",
    408: _AGAIN,
    412: "somebody committed there in the meantime, and nothing was changed; look at it, then run again.",
    429: "too many requests; wait a few minutes, then run the same command again.",
}


class HubError(ExportError):
    """The Hub refused, or the connection to it broke; the message says what to do."""


@contextmanager
def hub_errors(action: str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns what the client raises into a `HubError` that says what to do.

    Args:
        action: What is being done, as in "pushing to org/name".
        passing: Errors that the caller tells of itself.
    """
    clear: tuple[type[Exception], ...] = (ExportError, *passing)
    try:
        yield
    except clear:
        raise
    except LocalTokenNotFoundError as error:
        raise HubError(f"{action}: there is no token; run `hf auth login`, or set HF_TOKEN.") from error
    except HFValidationError as error:
        raise HubError(f"{action}: {error}") from error
    except Exception as error:
        chain = list(_chain(error))
        if any(isinstance(one, OfflineModeIsEnabled) for one in chain):
            raise HubError(f"{action}: HF_HUB_OFFLINE is set, which forbids it; unset it.") from error
        answer = next((one for one in chain if isinstance(one, HfHubHTTPError)), None)
        if answer is None and not any(_is_connection_error(one) for one in chain):
            raise
        raise HubError(f"{action}: {_advice(answer)}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it; an upload wraps the answer of the server in others."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_connection_error(error: BaseException) -> bool:
    """Whether a connection broke; the client's HTTP library differs between its versions."""
    home = type(error).__module__
    return isinstance(error, ConnectionError | TimeoutError) or home.startswith(("httpx", "requests"))


def _advice(error: HfHubHTTPError | None) -> str:
    """What the Hub answered and what to do; the same request is made again only where it may go better."""
    if error is None:
        return f"the connection broke; {_AGAIN}"
    status = error.response.status_code
    quoted = f" ({error.server_message})" if error.server_message else ""
    meaning = 404 if isinstance(error, RepositoryNotFoundError) else status
    otherwise = _AGAIN if status >= 500 else "it will not take this as it is; correct what it names."
    return f"the Hub answered {status}{quoted}: {_ADVICE.get(meaning, otherwise)}"
