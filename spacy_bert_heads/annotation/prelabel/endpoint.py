"""An endpoint that speaks the chat completions of OpenAI: vLLM, llama.cpp's server, Ollama, hosted models.

What it sends back is bounded in size and time. The key goes to it and stands in no message, file or answer.
"""

import json
import random
import re
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from ...errors import BertHeadsError, printable
from .cache import Reply
from .questions import Message

KEY_VARIABLE = "SPACY_BERT_HEADS_API_KEY"
CONNECT_SECONDS = 10.0
# Of one answer, unpacked. An answer to a text of a million characters is shorter.
MAX_ANSWER_BYTES = 4 << 20
CHUNK_BYTES = 1 << 12
MAX_TOKENS_COUNTED = 10_000_000
# How often one prompt is tried, and the seconds in between: doubled each time, or what the endpoint asks for.
TRIES = 6
BACKOFF_SECONDS = 1.0
LONGEST_WAIT = 60.0
# Bytes of a token, where the endpoint does not count them: four letters of English, one Chinese character
BYTES_PER_TOKEN = 3
# So many tokens around each message, at most
TOKENS_PER_MESSAGE = 16
# What may be asked of an answer's form, the strictest first
SCHEMA, JSON_MODE, PROSE = range(3)
SPACES = re.compile(r"\s+")


class RefusedError(Exception):
    """The endpoint gives no answer to this one prompt; its message says why."""


class StoppedError(Exception):
    """The run ends, so nothing is asked any more."""


class _Dialect(NamedTuple):
    """What an endpoint understands.

    form (int): SCHEMA, JSON_MODE or PROSE.
    tokens_key (str): What it calls the most tokens of an answer.
    temperature (bool): Whether it lets one set the temperature.
    """

    form: int = SCHEMA
    tokens_key: str = "max_tokens"
    temperature: bool = True

    def easier(self, detail: str) -> Optional["_Dialect"]:
        """RETURNS (Optional[_Dialect]): What to try after it refused this. None: there is nothing else to try."""
        if "max_completion_tokens" in detail and self.tokens_key == "max_tokens":
            return self._replace(tokens_key="max_completion_tokens")
        if "temperature" in detail and self.temperature:
            return self._replace(temperature=False)
        return None if self.form == PROSE else self._replace(form=self.form + 1)


class ChatEndpoint:
    """Asks one model. Methods may be called from several threads once `settled`.

    url (str): Address, to which `/chat/completions` is added, such as "http://127.0.0.1:8000/v1".
    model (str): Name of the model there.
    key (str): What the endpoint knows its users by. "": nothing.
    timeout (float): Seconds in which an answer must be complete.
    RAISES (BertHeadsError): H741 if the address is none, H742 if the key cannot be one.

    settled (bool): Whether it has answered once, so that it is known which form of answers it can be held to.
    """

    def __init__(self, url: str, model: str, key: str, *, timeout: float) -> None:
        host = _host_of(url)
        if host is None:
            shown = "one with a password in it" if "@" in url else repr(url)
            raise BertHeadsError("H741", found=shown)
        if key and (not key.isascii() or not key.isprintable() or " " in key):
            raise BertHeadsError("H742", found="one with other characters")
        self.url = url.rstrip("/")
        self.host = host
        self.model = model
        self.is_local = is_loopback(host)
        self.is_encrypted = url.lower().startswith("https:")
        self.settled = False
        self._key = key
        self._timeout = timeout
        self._dialect = _Dialect()
        self._has_answered = False
        self._stopping = threading.Event()
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # An environment variable for a proxy would send to it what is not to leave this machine
        self._session.trust_env = not self.is_local
        self._session.auth = _Key(key)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=64))

    def ask(self, messages: List[Message], schema: Dict[str, Any], max_tokens: int) -> Reply:
        """Ask for an answer.

        messages (List[Dict[str, str]]): The prompt.
        schema (Dict[str, Any]): JSON schema of the answer.
        max_tokens (int): The most tokens that it may have.
        RETURNS (Reply): What came back. It may be anything that a model can write.
        RAISES (RefusedError): If the endpoint gives no answer to this prompt, but may to others. (StoppedError): After
            `stop`. (BertHeadsError): H743 if it cannot be reached, H744 if it does not take the key, H745 if it does
            not know the model or the address.
        """
        while True:
            dialect = self._dialect
            status, content, detail = self._post(self._body(messages, schema, max_tokens, dialect))
            if status == 200:
                reply = self._read(content, messages)
                self.settled = True
                return reply
            if status in (401, 403):
                raise BertHeadsError("H744", found=detail, url=self.url, status=status)
            if status == 404:
                raise BertHeadsError(
                    "H745", found=repr(self.model), url=self.url, detail=detail, models=self._models()
                )
            easier = None if self.settled or status in (413, 429) else dialect.easier(detail)
            if easier is None:
                if not self.settled:
                    self._dialect = _Dialect()
                raise RefusedError(f"status {status}: {detail}")
            self._dialect = easier

    def stop(self) -> None:
        """Let no more be asked; what waits for another try gives up."""
        self._stopping.set()

    def _body(self, messages: List[Message], schema: Dict[str, Any], max_tokens: int, dialect: _Dialect) -> bytes:
        body: Dict[str, Any] = {"model": self.model, "messages": messages, dialect.tokens_key: max_tokens}
        if dialect.temperature:
            body["temperature"] = 0
        if dialect.form == SCHEMA:
            named = {"name": "annotation", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif dialect.form == JSON_MODE:
            body["response_format"] = {"type": "json_object"}
        return json.dumps(body).encode("ascii")

    def _post(self, body: bytes) -> Tuple[int, bytes, str]:
        """RETURNS (Tuple[int, bytes, str]): Status, content, and what the endpoint says is wrong, if it does."""
        failure: Exception = StoppedError()
        delay = 0.0
        for number in range(TRIES):
            if number:
                self._stopping.wait(delay)
            if self._stopping.is_set():
                raise StoppedError()
            delay = min(LONGEST_WAIT, BACKOFF_SECONDS * 2**number * (1.0 + random.random() / 4))
            try:
                status, headers, content = self._send("POST", "/chat/completions", body)
            except requests.Timeout:
                failure = RefusedError(f"no complete answer within {self._timeout:g} seconds")
                continue
            except requests.RequestException as error:
                failure = BertHeadsError("H743", url=self.url, found=_reason(error))
                if not self._has_answered:
                    raise failure from None
                continue
            self._has_answered = True
            detail = "" if status == 200 else self._detail(status, content)
            if status == 429 or status >= 500:
                failure = RefusedError(f"status {status}: {detail}")
                # Some servers say so when they cannot hold an answer to a schema
                if status in (500, 501) and not self.settled and self._dialect.form != PROSE and number:
                    return status, content, detail
                delay = min(LONGEST_WAIT, _retry_after(headers.get("Retry-After"), delay))
                continue
            return status, content, detail
        raise failure from None

    def _send(self, method: str, path: str, body: Optional[bytes] = None) -> Tuple[int, Any, bytes]:
        until = time.monotonic() + self._timeout
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        with self._session.request(
            method,
            self.url + path,
            data=body,
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=(min(CONNECT_SECONDS, self._timeout), self._timeout),
        ) as response:
            content = bytearray()
            while True:
                chunk = self._read_chunk(response)
                if not chunk:
                    break
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise RefusedError(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")
                if time.monotonic() > until:
                    raise requests.Timeout()
            if self._key:
                # Whoever sends it back does not have it written to a file
                content = content.replace(self._key.encode("ascii"), b"***")
            return response.status_code, response.headers, bytes(content)

    def _read_chunk(self, response: requests.Response) -> bytes:
        """What there is of the content, without waiting for more of it, where urllib3 can do that."""
        read: Any = getattr(response.raw, "read1", response.raw.read)
        try:
            return bytes(read(CHUNK_BYTES, decode_content=True))
        except Exception as error:  # urllib3's own, which requests translates in its own methods only
            if "timed out" in str(error).lower():
                raise requests.Timeout() from None
            raise requests.ConnectionError(str(error)) from None

    def _read(self, content: bytes, messages: List[Message]) -> Reply:
        answer = _load(content)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        message = choice.get("message")
        written = message.get("content") if isinstance(message, dict) else None
        if isinstance(written, list):
            parts = (part.get("text") for part in written if isinstance(part, dict))
            written = "".join(part for part in parts if isinstance(part, str))
        if not isinstance(message, dict) or not isinstance(written, (str, type(None))):
            raise RefusedError(f"no chat completion, but {_excerpt(content)}")
        written = (written or "").encode("utf8", "replace").decode("utf8")
        usage = answer.get("usage") if isinstance(answer, dict) else None
        counts = [
            usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")
        ]
        if all(type(count) is int and 0 <= count <= MAX_TOKENS_COUNTED for count in counts):
            return Reply(written, counts[0], counts[1], False)  # type: ignore[arg-type]
        n_bytes = sum(len(one["content"].encode("utf8", "surrogatepass")) for one in messages)
        return Reply(written, n_bytes // BYTES_PER_TOKEN + 1, len(written.encode("utf8")) // BYTES_PER_TOKEN + 1, True)

    def _models(self) -> str:
        """Names of the models that there are, for a message."""
        try:
            status, _, content = self._send("GET", "/models")
            listed = _load(content)
            entries = listed.get("data") if status == 200 and isinstance(listed, dict) else None
            names = [entry.get("id") for entry in entries or () if isinstance(entry, dict)]
            return ", ".join(name for name in names[:20] if isinstance(name, str))[:500] or "unknown"
        except (requests.RequestException, RefusedError):
            return "unknown"

    def _detail(self, status: int, content: bytes) -> str:
        answer = _load(content)
        error: Any = answer.get("error", answer) if isinstance(answer, dict) else None
        for key in ("message", "detail", "object"):
            if isinstance(error, dict) and isinstance(error.get(key), str):
                error = error[key]
        return error[:500] if isinstance(error, str) and error else _excerpt(content)


class _Key(AuthBase):
    """Signs requests. As an AuthBase, since a `.netrc` would replace a header."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def most_tokens(messages: List[Message]) -> int:
    """RETURNS (int): A prompt has no more tokens than this: each is at least a byte."""
    return sum(len(one["content"].encode("utf8", "surrogatepass")) + TOKENS_PER_MESSAGE for one in messages)


def is_loopback(host: str) -> bool:
    """RETURNS (bool): Whether what is sent to this host stays on this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> Optional[str]:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return None
    # In a query there could be a key
    return parts.hostname if is_address and not (parts.query or parts.fragment) else None


def _retry_after(value: Optional[str], default: float) -> float:
    try:
        seconds = float(value or "")
    except ValueError:
        return default
    return seconds if 0.0 <= seconds < float("inf") else default


def _load(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _excerpt(content: bytes) -> str:
    return repr(SPACES.sub(" ", content[:80].decode("utf8", "replace"))) if content else "nothing"


def _reason(error: requests.RequestException) -> str:
    reason = getattr(error.args[0] if error.args else error, "reason", error)
    return printable(str(reason).split(": ")[-1])
