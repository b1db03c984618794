"""A server that answers as Label Studio 1.23.2 does (docs/reference/formats.md), or fails as it can."""

import json
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from urllib.parse import parse_qs, urlsplit

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2VjcmV0"
ACCESS = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIn0.c2VjcmV0"


class Stub:
    """What the server has, and how it fails.

    url (str): Its address.
    projects, tasks (Dict[int, Dict[str, Any]]): By number. Tasks have `predictions` and `annotations`.
    calls (List[Tuple[str, str]]): Method and path of each request.
    refreshed (int): How often the personal token was exchanged.
    failing (Optional[Callable]): Takes method, path and handler; true if it answered in its own way.
    """

    def __init__(self) -> None:
        self.url = ""
        self.projects: Dict[int, Dict[str, Any]] = {}
        self.tasks: Dict[int, Dict[str, Any]] = {}
        self.calls: List[Tuple[str, str]] = []
        self.refreshed = 0
        self.failing: Optional[Callable[[str, str, Any], bool]] = None

    def predictions(self, project: int) -> List[Tuple[str, str, float]]:
        """Text, model version and score of each."""
        return [
            (task["data"]["text"], prediction["model_version"], prediction["score"])
            for task in self.tasks.values()
            if task["project"] == project
            for prediction in task["predictions"]
        ]

    def answer(self, method: str, path: str, query: Dict[str, str], body: Any) -> Tuple[int, Any]:
        parts = path.strip("/").split("/")[1:]
        if parts == ["projects"] and method == "POST":
            number = len(self.projects) + 1
            self.projects[number] = {"id": number, "model_version": "", "sampling": "Sequential sampling", **body}
            return 201, self.projects[number]
        if parts == ["projects"]:
            found = [p for p in self.projects.values() if query["title"].lower() in p["title"].lower()]
            return 200, {"count": len(found), "results": [{"id": p["id"], "title": p["title"]} for p in found]}
        if parts == ["tasks"]:
            return self._page(int(query["project"]), int(query["page"]), int(query["page_size"]))
        project = int(parts[1]) if parts[1].isdecimal() else 0
        if project not in self.projects:
            return 404, {"status_code": 404, "detail": "No Project matches the given query."}
        return self._project(method, project, parts[2:], body)

    def _project(self, method: str, project: int, parts: List[str], body: Any) -> Tuple[int, Any]:
        mine = {number: task for number, task in self.tasks.items() if task["project"] == project}
        if parts == ["import"]:
            for task in body:
                number = 1000 + len(self.tasks)
                self.tasks[number] = {"id": number, "project": project, "predictions": [], "annotations": [], **task}
            return 201, {"task_count": len(body)}
        if parts == ["import", "predictions"]:
            for prediction in body:
                if prediction["task"] not in mine:
                    return 400, {"detail": "Validation error", "validation_errors": {"task": ["invalid"]}}
                mine[prediction["task"]]["predictions"].append(prediction)
            return 201, {"created": len(body)}
        if parts == ["export"]:
            annotated = [task for task in mine.values() if task["annotations"]]
            return 200, [{**task, "predictions": [1], "drafts": []} for task in annotated]
        if method == "PATCH":
            versions = {p["model_version"] for task in mine.values() for p in task["predictions"]}
            if body.get("model_version") not in versions:
                return 400, {"detail": "Validation error", "validation_errors": {"model_version": ["doesn't exist"]}}
            self.projects[project].update(body)
        return 200, self.projects[project]

    def _page(self, project: int, page: int, size: int) -> Tuple[int, Any]:
        mine = [task for task in self.tasks.values() if task["project"] == project]
        if page > 1 and not mine[(page - 1) * size :]:
            return 404, {"status_code": 404, "detail": "Invalid page."}
        shown = [
            {
                "id": task["id"],
                "data": task["data"],
                "predictions_model_versions": ",".join(sorted({p["model_version"] for p in task["predictions"]})),
            }
            for task in mine[(page - 1) * size : page * size]
        ]
        return 200, {"total": len(mine), "tasks": shown}


class Handler(BaseHTTPRequestHandler):
    stub: Stub

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.stub.calls.append((self.command, parts.path))
        if self.stub.failing is not None and self.stub.failing(self.command, parts.path, self):
            return
        if parts.path == "/api/token/refresh/":
            self.stub.refreshed += 1
            self.send(*((200, {"access": ACCESS}) if body == {"refresh": PERSONAL} else (401, {"detail": "invalid"})))
        elif self.headers.get("Authorization") not in (f"Token {LEGACY}", f"Bearer {ACCESS}"):
            self.send(401, {"status_code": 401, "detail": "Invalid token."})
        else:
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            self.send(*self.stub.answer(self.command, parts.path, query, body))

    do_GET = do_POST = do_PATCH = _handle

    def send(self, status: int, answer: Any) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode("utf8")
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def running_stub() -> Iterator[Stub]:
    """A stub that listens, on a port of its own, until the block is left."""
    stub = Stub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"stub": stub}))
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def failing_with(status: int, content: bytes, *, path: str = "", seconds: float = 0.0) -> Callable[..., bool]:
    """Fail on each path that contains `path`, perhaps after a while."""

    def fail(method: str, requested: str, handler: Any) -> bool:
        if path in requested:
            time.sleep(seconds)
            handler.send(status, content)
        return path in requested

    return fail
