"""One chat completion after the other from an OpenAI-compatible endpoint; what fails for the moment is asked again.

The key comes from the environment variable that `endpoint.key_env` names. It is sent to the endpoint and nowhere else:
not into a file, not into a message, also not where the endpoint repeats it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from threading import Event, Lock
from typing import Any

import httpx2

from ramify.base.config import Endpoint
from ramify.base.errors import ConfigError, ModelError
from ramify.sample.endpoint.answers import (
    Answer,
    BadAnswerError,
    is_out_of_money,
    read_answer,
    reason_of,
    seconds_asked,
)
from ramify.sample.endpoint.pace import BackOff, Pace
from ramify.sample.endpoint.usage import Usage

_PASSING = (408, 409, 425, 429)  # besides most of 5xx
_LASTING = (501, 505, 510, 511)
_HINTS = {
    401: "endpoint.key_env names the environment variable that holds the key",
    403: "endpoint.key_env names the environment variable that holds the key",
    404: "does endpoint.base_url end in the version (…/v1), and does the endpoint know the model?",
}
_KEPT = "the same command goes on with what was drawn so far (with --resume where it has that option)"


class _PassingError(Exception):
    """A failure that may pass. `wait`: the seconds that the endpoint asks for, or None."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Client:
    """Asks one endpoint; safe to use from many threads.

    Args:
        endpoint: where it is, and how it is treated.
        stopped: set when it is over: no request begins after that.
        back_off: how long to wait before a request is sent again.

    Attributes:
        usage: what was spent so far.

    Raises:
        ConfigError: the environment variable of the key is not set.
    """

    def __init__(self, endpoint: Endpoint, stopped: Event, back_off: BackOff | None = None) -> None:
        self._endpoint, self._back_off = endpoint, back_off or BackOff()
        self._pace = Pace(endpoint.requests_per_minute, stopped)
        self._key = read_key(endpoint.key_env)
        self._length = "max_tokens"
        self._answered = False
        self._lock = Lock()
        self.usage = Usage()
        self._http = httpx2.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(endpoint.timeout, connect=min(10.0, endpoint.timeout)),
            # A plain connection needs no certificates, and reading them takes a while.
            verify=str(endpoint.base_url).startswith("https:"),
            limits=httpx2.Limits(max_connections=endpoint.parallel, max_keepalive_connections=endpoint.parallel),
        )

    def ask(self, body: Mapping[str, Any]) -> Answer:
        """The completion of one request, asked for as often as `endpoint.retries` allows.

        Args:
            body: of `/chat/completions`; `max_tokens` is renamed for endpoints that know `max_completion_tokens` only.

        Raises:
            ModelError: it was refused for good, or for the moment too often; names status and reason.
            StoppedError: it is over.
        """
        for attempt in range(self._endpoint.retries + 1):
            self._pace.wait()
            try:
                return self._once(body, repeated=attempt > 0)
            except _PassingError as failure:
                reason, asked = str(failure), failure.wait
            if asked is not None and asked > self._back_off.patience:
                raise self._failed(f"{reason}; it asks to wait {asked:,.0f} s", hint=_KEPT)
            if attempt == self._endpoint.retries:
                break
            if asked is None:
                self._pace.pause(self._back_off.seconds(attempt))
            else:
                self._pace.hold(asked)
        raise self._failed(f"{reason} ({self._endpoint.retries + 1} times in a row)", hint=_KEPT)

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def _once(self, body: Mapping[str, Any], repeated: bool) -> Answer:
        """Send it once.

        Raises:
            _PassingError: it may work the next time.
            ModelError: it will not.
        """
        self._count(Usage(requests=1, repeated=int(repeated)))
        length = self._length
        response = self._post({length if name == "max_tokens" else name: value for name, value in body.items()})
        if response.status_code != 200:
            reason = reason_of(response.content)
            if response.status_code == 400 and length == "max_tokens" and "max_completion_tokens" in reason:
                self._length = "max_completion_tokens"
                return self._once(body, repeated=True)
            raise self._refusal(response, reason)
        try:
            answer = read_answer(response.content)
        except BadAnswerError as error:
            raise _PassingError(self._safe(str(error))) from None
        self._answered = True
        self._count(answer.usage)
        return answer

    def _post(self, body: Mapping[str, Any]) -> httpx2.Response:
        try:
            return self._http.post(f"{self._endpoint.base_url}/chat/completions", json=dict(body))
        except httpx2.TimeoutException:
            raise _PassingError(f"no answer within {self._endpoint.timeout:g} s") from None
        except httpx2.ConnectError as error:
            if self._answered:
                raise _PassingError(f"no connection: {error}") from None
            raise self._failed(f"nothing answers there: {error}", hint="is endpoint.base_url right?") from None
        except httpx2.HTTPError as error:  # cut off, or not HTTP
            raise _PassingError(f"the answer broke off: {self._safe(str(error)) or type(error).__name__}") from None
        except httpx2.InvalidURL as error:
            raise self._failed(f"not an address: {error}") from None

    def _refusal(self, response: httpx2.Response, reason: str) -> Exception:
        status = response.status_code
        said = f"{status} {response.reason_phrase}" + (f": {self._safe(reason)}" if reason else "")
        passing = status in _PASSING or (status >= 500 and status not in _LASTING)
        if passing and not is_out_of_money(response.content):
            return _PassingError(said, seconds_asked(response.headers))
        return self._failed(said, hint=_HINTS.get(status))

    def _failed(self, reason: str, hint: str | None = None) -> ModelError:
        return ModelError(f"{self._endpoint.base_url}: {reason}", hint=hint)

    def _safe(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self._key, "***") if self._key else text

    def _count(self, usage: Usage) -> None:
        with self._lock:
            self.usage = self.usage + usage


def read_key(variable: str | None) -> str:
    """The key in that environment variable; empty when none is named.

    Raises:
        ConfigError: it is not set, or cannot be sent as it is.
    """
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"endpoint.key_env: the environment variable {variable} is not set")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"endpoint.key_env: what {variable} holds is no key (letters outside ASCII, or white space)")
    return key
