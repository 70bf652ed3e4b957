"""What huggingface_hub raises, in a user's words."""

import contextlib
from collections.abc import Iterator

from fastvlm_compile.errors import HubError, PushError
from reference.errors import UserError

_AGAIN = "push again: what has arrived is not sent a second time"


@contextlib.contextmanager
def hub_refusals(endpoint: str, repo: str) -> Iterator[None]:
    """Turn a refusal of the hub, or of the way to it, into an error of ours.

    Args:
        endpoint: the hub's address.
        repo: `OWNER/NAME`.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # Its bases are the base of all errors of the HTTP library and OSError. A thread that uploads
    # wraps any of them in a RuntimeError.
    failures: tuple[type[BaseException], ...] = (
        *HfHubHTTPError.__bases__,
        RuntimeError,
        ValueError,
    )
    try:
        yield
    except HFValidationError as error:
        raise HubError(f"{repo}: this is no name of a repository: {error}") from error
    except failures as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            raise _refused(endpoint, repo, cause.response.status_code, _words(cause)) from error
        raise PushError(f"{repo}: the upload to {endpoint} failed: {cause}", hint=_AGAIN) from error


def _words(error: BaseException) -> str:
    """What the server said, on one line."""
    said = getattr(error, "server_message", None) or str(error)
    return " ".join(said.split())


def _refused(endpoint: str, repo: str, status: int, words: str) -> UserError:
    match status:
        case 401:
            return PushError(
                f"{repo}: {endpoint} does not know the token (401): {words}",
                hint="`hf auth login` with a token that is valid, and push again",
            )
        case 403:
            return PushError(
                f"{repo}: the token may not write there (403): {words}",
                hint="use a token with write permission, and an owner that you belong to",
            )
        case 404:
            return PushError(
                f"{repo}: there is no such owner or repository (404): {words}",
                hint="the owner is your user name, or an organization that you belong to",
            )
        case _:
            return PushError(f"{repo}: {endpoint} answered {status}: {words}", hint=_AGAIN)
