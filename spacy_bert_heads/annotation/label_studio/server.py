"""A pipeline as Label Studio's ML backend: four routes that its server calls (docs/reference/formats.md)."""

import hmac
import ipaddress
import json
import logging
import math
import re
from base64 import b64decode
from pathlib import Path
from threading import Lock
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from flask import Flask, Response, request
from spacy.language import Language
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import create_server
from waitress.utilities import Error
from werkzeug.exceptions import HTTPException, UnsupportedMediaType

from ...corpus.docs import check_words
from ...corpus.findings import Where
from ...corpus.readers.labelling_config import LabellingConfig
from ...corpus.readers.offsets import show
from ...errors import BertHeadsError, NotWrittenError, printable
from ...pipeline_io import load_pipeline
from ..heads import Heads, find_heads
from ..strategies import Scorer, can_be_unsure, make_scorer
from ..tasks import TaskMaker, default_view
from .answers import AnswersFile
from .tasks import Suggested, pipeline_config, pipeline_version

# A request holds at most so many bytes. Label Studio asks for the predictions of a few hundred tasks at once.
MAX_REQUEST_BYTES = 64 << 20
# While one waits for predictions, others say that the server is there: Label Studio waits a second for that.
THREADS = 8
# JSON is refused that has more lists and objects in each other; Label Studio's have about ten.
MAX_DEPTH = 100
SURROGATES = re.compile("[\ud800-\udfff]")
REALM = 'Basic realm="spacy-bert-heads"'
LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"]
REQUEST = Where(Path("/predict"), 0)

logger = logging.getLogger(__name__)


class Predictor:
    """Predictions of a pipeline, for tasks of any project. A pipeline reads texts for one thread at a time.

    nlp (Language): The pipeline.
    model_version (str): By which Label Studio is to know it.
    RAISES (BertHeadsError): H557 if it has no head.
    """

    def __init__(self, nlp: Language, model_version: str) -> None:
        self.model_version = model_version
        self.config = pipeline_config(nlp)
        heads = find_heads(nlp)
        self._maker = TaskMaker(nlp, default_view(heads))
        self._scorer = _make_scorer(nlp, heads)
        self._nlp = nlp
        self._lock = Lock()

    def predict(self, tasks: Sequence[Any], config: LabellingConfig) -> List[Dict[str, Any]]:
        """Predict.

        tasks (Sequence[Any]): As Label Studio sends them, with the text in their `data`.
        config (LabellingConfig): Interface of the project. What it does not ask for is left out.
        RETURNS (List[Dict[str, Any]]): A prediction for each task. Where there is no text to be read, it is without
            results, and says so.
        """
        predictions: List[Dict[str, Any]] = []
        texts: List[Tuple[str, int]] = []
        for number, task in enumerate(tasks):
            data = task.get("data") if isinstance(task, dict) else None
            text = data.get(config.text_key) if isinstance(data, dict) else None
            problem = self._problem(text, config)
            predictions.append({"model_version": self.model_version, "result": []})
            if problem:
                predictions[-1]["error"] = problem
                logger.warning("No prediction for task %s: %s", show(task.get("id") if data else task), problem)
            else:
                texts.append((str(text), number))
        with self._lock:
            for number, suggested in self._suggest(texts):
                predictions[number] = suggested.prediction(config, self.model_version)
        return predictions

    def _suggest(self, texts: Sequence[Tuple[str, int]]) -> Iterator[Tuple[int, Suggested]]:
        for doc, number in self._nlp.pipe(texts, as_tuples=True):
            meta = {} if self._scorer is None else {"score": self._scorer.score(doc)}
            suggested = Suggested(doc.text, REQUEST)
            for task in self._maker.make(doc, meta=meta):
                suggested.add(task, REQUEST)
            yield number, suggested

    def _problem(self, text: Any, config: LabellingConfig) -> str:
        if not isinstance(text, str) or not text.strip():
            return f"expected a text under {config.text_key!r}, found {show(text)}"
        if any("\ud800" <= character <= "\udfff" for character in text):
            return "half of a surrogate pair, such as '\\ud83d' alone, which is no text"
        if len(text) > self._nlp.max_length:
            return f"expected a text of at most {self._nlp.max_length:,} characters, found {len(text):,}"
        try:
            check_words(self._nlp, text)
        except BertHeadsError as error:
            return str(error)
        return ""


def make_app(
    predictor: Predictor, *, host: str = "localhost", answers: Optional[AnswersFile] = None, token: str = ""
) -> Flask:
    """Make the web application.

    predictor (Predictor): Says what is in a text.
    host (str): Address that it listens on.
    answers (Optional[AnswersFile]): Takes annotations that webhooks bring. None: they are not kept.
    token (str): Password that every request must bring, with any user name. "": none need to, and only those are
        answered that are addressed to the host or to this machine by a name of its own. A web page that made a name
        of its own stand for this machine would be refused.
    RETURNS (Flask): The application.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    if not token:
        app.config["TRUSTED_HOSTS"] = [*LOOPBACK_NAMES, host]

    @app.before_request
    def check_token() -> Optional[Response]:
        given = request.authorization
        password = (given.password if given is not None and given.type == "basic" else None) or ""
        if token and not hmac.compare_digest(password.encode("utf8"), token.encode("utf8")):
            return Response(status=401, headers={"WWW-Authenticate": REALM})
        return None

    @app.errorhandler(HTTPException)
    def show_error(error: HTTPException) -> Tuple[Dict[str, Any], int]:
        return {"error": error.description}, error.code or 500

    @app.errorhandler(BertHeadsError)
    def show_mistake(error: BertHeadsError) -> Tuple[Dict[str, Any], int]:
        logger.error("%s: %s", request.path, error)
        return {"error": str(error)}, 500 if isinstance(error, NotWrittenError) else 400

    @app.get("/health")
    def health() -> Dict[str, Any]:
        return {"status": "UP", "model_class": "spacy-bert-heads"}

    @app.post("/setup")
    def setup() -> Dict[str, Any]:
        # `access_token` of the request would let us into Label Studio; nothing here needs it.
        lacking = _lacking(predictor.config, _read_config(_body().get("schema"), predictor))
        if lacking:
            named = printable(", ".join(lacking))
            logger.warning("The project does not ask for %s; such predictions are left out", named)
        return {"model_version": predictor.model_version}

    @app.post("/predict")
    def predict() -> Tuple[Dict[str, Any], int]:
        body = _body()
        tasks = body.get("tasks")
        if not isinstance(tasks, list):
            return {"error": f"expected 'tasks' as a list, found {show(tasks)}"}, 400
        return {"results": predictor.predict(tasks, _read_config(body.get("label_config"), predictor))}, 200

    @app.post("/webhook")
    def webhook() -> Tuple[Dict[str, Any], int]:
        body = _body()
        _check_storable(body)
        if body.get("action") == "START_TRAINING":
            logger.warning("This server was asked to train, which it does not do: merge the answers and train")
        elif answers is not None:
            answers.take(body)
        return {"action": body.get("action")}, 201

    return app


def serve(model: str, *, host: str, port: int, answers: Optional[Path] = None, token: str = "") -> None:
    """Serve a pipeline until the process is interrupted.

    model (str): Its folder, or the name of its package.
    host (str): Address to listen on.
    port (int): Port to listen on.
    answers (Optional[Path]): File for annotations that webhooks bring.
    token (str): Password that every request must bring.
    RAISES (BertHeadsError): H123 if the answers cannot be written; H227 if the pipeline cannot be loaded; H555 if it
        cannot listen; H556 if it is open to others without a password; H557 if the pipeline has no head.
    """
    if not token and not _is_loopback(host):
        raise BertHeadsError("H556", found=host)
    file = None if answers is None else AnswersFile(answers)
    nlp = load_pipeline(model)
    predictor = Predictor(nlp, pipeline_version(nlp))
    server = listen(make_app(predictor, host=host, answers=file, token=token), host, port, token=token)
    logger.info("%s answers at http://%s:%d", predictor.model_version, host, port)
    server.run()


def listen(app: Flask, host: str, port: int, *, token: str = "") -> Any:
    """Make a server for an application. Its `run` serves until its `close` is called.

    app (Flask): The application.
    host (str): Address to listen on.
    port (int): Port to listen on; 0 takes one that is free.
    token (str): Password without which the body of a request is not even read. "": there is none.
    RETURNS (BaseWSGIServer): The server, which has the port already.
    RAISES (BertHeadsError): H555 if it cannot have it.
    """
    try:
        server = create_server(app, host=host, port=port, threads=THREADS, max_request_body_size=MAX_REQUEST_BYTES)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BertHeadsError("H555", host=host, port=port, found=reason) from error
    if token:
        # A name that stands for several addresses has a server for each
        for one in (server, *getattr(server, "map", {}).values()):
            if hasattr(one, "channel_class"):
                one.channel_class = _guarded_channel(token)
    return server


class _Unauthorized(Error):
    code = 401
    reason = "Unauthorized"

    def to_response(self, ident: Optional[str] = None) -> Tuple[str, List[Tuple[str, str]], bytes]:
        status, headers, body = super().to_response(ident)
        return status, [*headers, ("WWW-Authenticate", REALM)], body


def _guarded_channel(token: str) -> type:
    """Waitress reads a whole request before it calls the application, which is too late to ask for the password."""

    class Parser(HTTPRequestParser):
        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            scheme, _, given = self.headers.get("AUTHORIZATION", "").partition(" ")
            try:
                password = b64decode(given, validate=True).partition(b":")[2] if scheme.lower() == "basic" else b""
            except ValueError:
                password = b""
            if not hmac.compare_digest(password, token.encode("utf8")):
                self.error = _Unauthorized("the password is missing or wrong")
                self.completed = True
                self.expect_continue = False

    return type("GuardedChannel", (HTTPChannel,), {"parser_class": Parser})


def _body() -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): The JSON object of a request. RAISES (BertHeadsError): H551 if it is none."""
    # Only a body that is declared to be JSON: no form of a web page can send that.
    if not request.is_json:
        raise UnsupportedMediaType("expected the Content-Type application/json")
    raw = request.get_data()
    try:
        body = json.loads(raw)
    except RecursionError:
        body = None
    except ValueError as error:
        raise BertHeadsError("H551", expected="a body of JSON", found=f"another one ({error})") from error
    if body is None or _depth(body) > MAX_DEPTH:
        raise BertHeadsError("H551", expected=f"JSON at most {MAX_DEPTH} levels deep", found=f"{show(raw[:40])}...")
    if not isinstance(body, dict):
        raise BertHeadsError("H551", expected="a JSON object", found=show(body))
    return body


def _depth(value: Any) -> int:
    """RETURNS (int): Levels of lists and objects in each other, counted up to one more than MAX_DEPTH."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        level = [item for part in level for item in _parts(part)]
        depth += 1
    return depth


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _check_storable(value: Any) -> None:
    """RAISES (BertHeadsError): H551 for what Python reads as JSON and a file of JSON cannot hold."""
    level = [value]
    while level:
        for part in level:
            keys = part if isinstance(part, dict) else ()
            if any(SURROGATES.search(text) for text in (part, *keys) if isinstance(text, str)):
                raise BertHeadsError("H551", expected="text", found=f"half of a surrogate pair in {show(part)}")
            if isinstance(part, float) and not math.isfinite(part):
                raise BertHeadsError("H551", expected="finite numbers", found=show(part))
            if isinstance(part, int) and not -(2**63) <= part < 2**63:
                raise BertHeadsError("H551", expected="whole numbers of at most 64 bits", found="a larger one")
        level = [item for part in level for item in _parts(part)]


def _read_config(xml: Any, predictor: Predictor) -> LabellingConfig:
    return LabellingConfig.from_xml(xml) if isinstance(xml, str) and xml else predictor.config


def _lacking(ours: LabellingConfig, theirs: LabellingConfig) -> List[str]:
    asked = {(question.type, label) for question in theirs.asked() for label in question.labels}
    pairs = [(question.type, label) for question in ours.asked() for label in question.labels]
    return [label for type, label in pairs if (type, label) not in asked]


def _make_scorer(nlp: Language, heads: Heads) -> Optional[Scorer]:
    # spaCy's own entity recognizer does not say how sure it is
    return make_scorer(nlp, None, heads) if can_be_unsure(heads) else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
