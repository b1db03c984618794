"""A server on loopback that speaks chat completions, and does so badly where a test wants it to."""

import json
import re
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Callable, Dict, Iterator, List, Optional

PEOPLE, CITIES = ("Anna", "Bob", "Kim"), ("London", "Paris", "New York")


def know(text: str) -> Dict[str, Any]:
    """The right answer: names of people and cities that stand as words, and what the text is about."""
    entities = []
    for label, names in (("PER", PEOPLE), ("LOC", CITIES)):
        for name in names:
            for number, _ in enumerate(re.finditer(rf"\b{name}\b", text), 1):
                entities.append({"text": name, "label": label, "occurrence": number})
    return {"entities": entities, "categories": ["TRAVEL" if "fl" in text else "OTHER"]}


class Stub:
    """What the server has been asked, and how it answers.

    url (str): Its address.
    bodies (List[Dict[str, Any]]): Of the requests that it answered.
    texts (List[str]): Which texts they were about.
    keys (List[Optional[str]]): What they were signed with.
    answer (Callable[[str], Any]): Takes a text; a string is the content of the answer, other values become JSON.
    failing (Optional[Callable[[Dict[str, Any], int, Any], bool]]): Takes the body, how many requests there were
        before, and the handler; true if it has answered in its own way.
    usage (bool): Whether it counts tokens: 100 and 10 for each prompt.
    """

    def __init__(self) -> None:
        self.url = ""
        self.bodies: List[Dict[str, Any]] = []
        self.keys: List[Optional[str]] = []
        self.answer: Callable[[str], Any] = know
        self.failing: Optional[Callable[[Dict[str, Any], int, Any], bool]] = None
        self.usage = True
        self.n_requests = 0
        self.lock = Lock()

    @property
    def texts(self) -> List[str]:
        return [text_of(body) for body in self.bodies]


def text_of(body: Dict[str, Any]) -> str:
    return body["messages"][-1]["content"]


def reply(handler: Any, status: int, body: Any, **headers: str) -> bool:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
    return True


def complete(written: Any, usage: bool = True) -> Dict[str, Any]:
    content = written if isinstance(written, str) else json.dumps(written)
    body: Dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": content}}]}
    return {**body, "usage": {"prompt_tokens": 100, "completion_tokens": 10}} if usage else body


@contextmanager
def serve() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            reply(self, 200, {"data": [{"id": "good-model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with stub.lock:
                number = stub.n_requests
                stub.n_requests += 1
            try:
                if stub.failing is not None and stub.failing(body, number, self):
                    return
                reply(self, 200, complete(stub.answer(text_of(body)), stub.usage))
                with stub.lock:
                    stub.bodies.append(body)
                    stub.keys.append(self.headers.get("Authorization"))
            except (BrokenPipeError, ConnectionResetError):
                pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def drip(handler: Any, seconds: float) -> bool:
    """Send a byte now and then, each in time."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)
    return True
