"""Label Studio's HTTP interface (docs/reference/formats.md), tried with version 1.23.2.

Every failure becomes an error that says what to do. A token is sent to the server and stands in no message.
"""

import json
import os
import time
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, NamedTuple, NoReturn, Optional, Sequence
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util.retry import Retry

from ...corpus.readers.labelling_config import LabellingConfig
from ...corpus.readers.lines import open_file
from ...errors import BertHeadsError

CONNECT_SECONDS = 5.0
# The server lets nobody read or write for so long while it imports or exports much.
READ_SECONDS = 120.0
# What a personal access token is exchanged for is valid for five minutes.
ACCESS_SECONDS = 120.0
# Tasks that go into one request, and that come back on one page.
IMPORT_SIZE = 500
PAGE_SIZE = 1000
# Of one answer, unpacked; an export, which has no such limit, goes to a file
MAX_ANSWER_BYTES = 1 << 28
MAX_SECRET_BYTES = 1 << 16
# Titles that the server takes.
TITLE_LENGTHS = range(3, 51)
RETRIED = Retry(
    total=3,
    read=1,
    backoff_factor=0.5,
    status_forcelist=(429, 502, 503, 504),
    allowed_methods=("GET", "PATCH"),  # to send an import twice might create tasks twice
    raise_on_status=False,
    respect_retry_after_header=False,  # it may be hours
)
TESTED_VERSION = "1.23.2"


class Project(NamedTuple):
    """A project of the server.

    id (int): Its number.
    title (str): Its title.
    xml (str): Its labelling interface as it is stored.
    config (LabellingConfig): The interface, read.
    """

    id: int
    title: str
    xml: str
    config: LabellingConfig


class StoredTask(NamedTuple):
    """A task that the server has.

    id (int): Its number.
    data (Dict[str, Any]): What was imported, the text among it.
    model_versions (List[str]): Of which models it has predictions.
    """

    id: int
    data: Dict[str, Any]
    model_versions: List[str]


class LabelStudio:
    """A server, as somebody with a token sees it.

    url (str): Its address, such as "http://127.0.0.1:8080".
    token (str): A personal access token, or a legacy one.
    read_seconds (float): How long to wait for an answer.
    RAISES (BertHeadsError): H541 if the address is none, H542 if the token cannot be one. Every method: H543 if the
        server cannot be reached, H544 if it does not answer in time, H545 if it does not take the token, H546 if it
        forbids something, H547 if its answer is not the one of a Label Studio server.
    """

    def __init__(self, url: str, token: str, *, read_seconds: float = READ_SECONDS) -> None:
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
            is_address = is_address and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            shown = "one with a password in it" if "@" in url else repr(url)
            raise BertHeadsError("H541", found=shown)
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise BertHeadsError("H542", found="one with other characters" if token else "an empty one")
        self.url = url.rstrip("/")
        self._timeout = (CONNECT_SECONDS, read_seconds)
        self._session = requests.Session()
        # A cookie would go on working where a token does not.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=RETRIED))
        self._session.auth = _Token(self, token)

    def find_project(self, name: str) -> Optional[Project]:
        """Find a project.

        name (str): Its number or its title.
        RETURNS (Optional[Project]): The project. None: no project has this title.
        RAISES (BertHeadsError): H540 if its interface cannot be read, H548 if there is no project of this number or
            several of this title.
        """
        if name.isdecimal():
            return self._project(self._call("GET", f"/api/projects/{name}", project=name))
        params = {"title": name, "page_size": PAGE_SIZE, "include": "id,title"}
        listed = self._get(self._call("GET", "/api/projects", params=params), "results", list)
        ids = [self._get(entry, "id", int) for entry in listed if self._get(entry, "title", str) == name]
        if len(ids) > 1:
            raise BertHeadsError("H548", found=f"{len(ids)} with the title {name!r}: {', '.join(map(str, ids))}")
        return self.find_project(str(ids[0])) if ids else None

    def create_project(self, title: str, xml: str) -> Project:
        """Create a project.

        title (str): Its title.
        xml (str): Its labelling interface.
        RETURNS (Project): The project, without tasks.
        RAISES (BertHeadsError): H549 if the title is too short or too long.
        """
        if len(title) not in TITLE_LENGTHS:
            raise BertHeadsError("H549", found=repr(title), least=TITLE_LENGTHS.start, most=TITLE_LENGTHS.stop - 1)
        return self._project(self._call("POST", "/api/projects", json={"title": title, "label_config": xml}))

    def tasks(self, project: Project) -> Iterator[StoredTask]:
        """List the tasks of a project, a page at a time.

        project (Project): The project.
        YIELDS (StoredTask): Its tasks.
        """
        include = "id,data,predictions_model_versions"
        params = {"project": project.id, "fields": "all", "include": include, "page_size": PAGE_SIZE, "page": 0}
        seen, total = 0, 1
        while seen < total:
            params["page"] += 1  # type: ignore[operator]
            answer = self._call("GET", "/api/tasks", params=params)
            page, total = self._get(answer, "tasks", list), self._get(answer, "total", int)
            seen += len(page) or total
            for task in page:
                versions = task.get("predictions_model_versions") or ""
                yield StoredTask(self._get(task, "id", int), self._get(task, "data", dict), versions.split(","))

    def import_tasks(self, project: Project, tasks: Sequence[Dict[str, Any]]) -> None:
        """Create tasks.

        project (Project): Where.
        tasks (Sequence[Dict[str, Any]]): With `data`, and `predictions` if there are any. At most IMPORT_SIZE.
        """
        answer = self._call("POST", f"/api/projects/{project.id}/import", json=list(tasks))
        created = self._get(answer, "task_count", int)
        if created != len(tasks):
            self._unexpected(f"{created} tasks created of {len(tasks)}")

    def import_predictions(self, project: Project, predictions: Sequence[Dict[str, Any]]) -> None:
        """Create predictions for tasks that are there.

        project (Project): Whose tasks.
        predictions (Sequence[Dict[str, Any]]): With `task`, `result` and `model_version`. At most IMPORT_SIZE.
        """
        self._call("POST", f"/api/projects/{project.id}/import/predictions", json=list(predictions))

    def activate(self, project: Project, model_version: str) -> None:
        """Show the predictions of a model to annotators, and serve those tasks first whose score is lowest.

        project (Project): Which project.
        model_version (str): Of which it must have predictions.
        """
        settings = {
            "model_version": model_version,
            "sampling": "Uncertainty sampling",
            "show_collab_predictions": True,
        }
        self._call("PATCH", f"/api/projects/{project.id}", json=settings)

    def export(self, project: Project, output: IO[bytes]) -> None:
        """Fetch the tasks that somebody annotated or skipped.

        project (Project): Which project.
        output (IO[bytes]): Takes the export as it comes, an array of JSON.
        RAISES (BertHeadsError): H123 if it cannot be written.
        """
        params = {"exportType": "JSON", "download_all_tasks": "false"}
        path = f"/api/projects/{project.id}/export"
        with self._send("GET", path, params=params, stream=True, project=str(project.id)) as response:
            try:
                for chunk in response.iter_content(1 << 16):
                    output.write(chunk)
            except requests.RequestException as error:
                self._fail(error)

    def refresh(self, token: str) -> str:
        """Exchange a personal access token for one that is valid for some minutes.

        token (str): The personal access token.
        RETURNS (str): What requests are sent with.
        """
        # Unsigned: what is sent with the session's token waits for this answer.
        answer = self._call("POST", "/api/token/refresh/", json={"refresh": token}, auth=_NoToken())
        return str(self._get(answer, "access", str))

    def _project(self, answer: Any) -> Project:
        xml = self._get(answer, "label_config", str)
        return Project(
            self._get(answer, "id", int), self._get(answer, "title", str), xml, LabellingConfig.from_xml(xml)
        )

    def _call(self, method: str, path: str, *, project: str = "", **options: Any) -> Any:
        with self._send(method, path, project=project, stream=True, **options) as response:
            return self._read(response)

    def _send(self, method: str, path: str, *, project: str, **options: Any) -> requests.Response:
        try:
            response = self._session.request(
                method, self.url + path, timeout=self._timeout, allow_redirects=False, **options
            )
        except requests.RequestException as error:
            self._fail(error)
        return self._check(response, path, project)

    def _check(self, response: requests.Response, path: str, project: str) -> requests.Response:
        status = response.status_code
        if status == 401:
            raise BertHeadsError("H545", found=self._detail(response), url=self.url)
        if status == 403:
            raise BertHeadsError("H546", found=self._detail(response), url=self.url)
        if status == 404 and project:
            raise BertHeadsError("H548", found=f"no project {project} at {self.url}")
        if status >= 300:
            found = response.headers.get("Location") if status < 400 else self._detail(response)
            self._unexpected(f"status {status} for {path}: {found}")
        return response

    def _read(self, response: requests.Response) -> Any:
        body = self._read_body(response)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            self._unexpected(f"no JSON, but {body[:60].decode('utf8', 'replace')!r}")

    def _detail(self, response: requests.Response) -> str:
        """What the server says is wrong."""
        try:
            answer = json.loads(self._read_body(response))
            said = [answer.get("detail"), answer.get("validation_errors")]
            return "; ".join(str(part).rstrip(".") for part in said if part)[:500] or str(response.reason)
        except (ValueError, AttributeError, RecursionError):
            return str(response.reason)

    def _read_body(self, response: requests.Response) -> bytes:
        """Unpacked as it comes, so that a small answer cannot fill the memory."""
        body = bytearray()
        try:
            for chunk in response.iter_content(1 << 16):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    self._unexpected(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")
        except requests.RequestException as error:
            self._fail(error)
        return bytes(body)

    def _get(self, answer: Any, key: str, type: type) -> Any:
        value = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(value, type):
            self._unexpected(f"JSON without {key!r}")
        return value

    def _unexpected(self, found: str) -> NoReturn:
        raise BertHeadsError("H547", found=f"from {self.url} {found}", tested=TESTED_VERSION)

    def _fail(self, error: requests.RequestException) -> NoReturn:
        if isinstance(error, requests.Timeout) or "timed out" in str(error):
            raise BertHeadsError("H544", url=self.url, seconds=self._timeout[1]) from None
        reason = getattr(error.args[0] if error.args else error, "reason", error)
        raise BertHeadsError("H543", url=self.url, found=str(reason).split(": ")[-1]) from None


class _Token(AuthBase):
    """Signs requests. As an AuthBase, since a `.netrc` would replace a header."""

    def __init__(self, server: LabelStudio, token: str) -> None:
        self._server = server
        self._token = token
        self._is_personal = token.count(".") == 2  # a JWT
        self._access = ""
        self._until = 0.0

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._is_personal and time.monotonic() >= self._until:
            self._access = self._server.refresh(self._token)
            self._until = time.monotonic() + ACCESS_SECONDS
        request.headers["Authorization"] = f"Bearer {self._access}" if self._is_personal else f"Token {self._token}"
        return request


class _NoToken(AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def read_token(path: Optional[Path], variable: str) -> str:
    """Read a secret from where no list of processes shows it.

    path (Optional[Path]): A file with nothing else in it.
    variable (str): Name of the environment variable that is used without a file.
    RETURNS (str): What is there, "" if there is neither.
    RAISES (BertHeadsError): H101 to H103 if the file cannot be read; H580 if the file or the variable is there and
        holds nothing: whoever gives an empty secret did not mean to give none.
    """
    if path is None:
        if variable not in os.environ:
            return ""
        secret = os.environ[variable].strip()
    else:
        with open_file(path) as stream:
            try:
                secret = stream.read(MAX_SECRET_BYTES).decode("utf8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise BertHeadsError("H103", path=path, found=type(error).__name__) from None
    if not secret:
        raise BertHeadsError("H580", path=path, found="an empty file" if path else f"the empty variable {variable}")
    return secret
