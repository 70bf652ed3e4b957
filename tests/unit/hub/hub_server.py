"""Enough of a hub, on 127.0.0.1, for one repository: it keeps what arrives and what it saw."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

TOKEN = "hf_of_the_test"
_LARGE = (".onnx", ".onnx_data", ".safetensors")


@dataclass
class Hub:
    """The state of the hub; a test changes it between pushes."""

    address: str = ""
    exists: bool = False
    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Branch -> path -> bytes. Large files are there by their sha256 until the commit."""
    objects: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)
    """Step (`create`, `commit`, `object`) -> the status to answer it with."""
    ignored: str = ""
    """A path that the repository's .gitignore names."""
    commits: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    objects_received: int = 0

    @property
    def files(self) -> dict[str, bytes]:
        """Of the main branch."""
        return self.branches["main"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def do_GET(self) -> None:
        _, _, _, _, _, *rest = self.path.partition("?")[0].split("/")
        match rest:
            case _ if not self.hub.exists:
                self._answer(404, {"error": "Repository not found"})
            case ["tree", _] | ["tree", _, ""]:
                self._tree()
            case [] | ["revision", _]:
                body = {"id": "me/tiny", "private": self.hub.private, "sha": self.hub.commits[-1]}
                self._answer(200, body)
            case _:
                self._answer(404, {"error": f"GET {self.path}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid credentials"})
            return
        parts = self.path.partition("?")[0].split("/")
        if self.path.endswith("/api/repos/create"):
            self._create(json.loads(body))
        elif self.path.endswith("/api/validate-yaml"):
            self._answer(200, {"warnings": [], "errors": []})
        elif "preupload" in parts:
            self._preupload(parts[-1], json.loads(body))
        elif self.path.endswith("/objects/batch"):
            self._batch(json.loads(body))
        elif "branch" in parts:
            self.hub.branches.setdefault(parts[-1], dict(self.hub.files))
            self._answer(200, {})
        elif "commit" in parts:
            self._commit(parts[-1], body.splitlines())
        else:
            self._answer(404, {"error": f"POST {self.path}"})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._refused("object"):
            return
        assert hashlib.sha256(body).hexdigest() == self.path.rpartition("/")[2]
        self.hub.objects[self.path.rpartition("/")[2]] = body
        self.hub.objects_received += 1
        self._answer(200, {})

    def _create(self, wanted: dict[str, str]) -> None:
        hub = self.hub
        if self._refused("create"):
            return
        if hub.exists:
            url = f"{self.hub.address}/me/tiny"
            self._answer(409, {"error": "You already created this model repo", "url": url})
            return
        hub.exists, hub.private = True, wanted.get("visibility") == "private"
        hub.branches["main"] = {".gitattributes": b"*.onnx filter=lfs\n"}
        hub.commits.append("0" * 40)
        self._answer(200, {"url": f"{self.hub.address}/me/tiny"})

    def _preupload(self, branch: str, wanted: dict[str, list[dict[str, str]]]) -> None:
        there = self.hub.branches[branch]
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                "shouldIgnore": file["path"] == self.hub.ignored,
                "oid": _oid(file["path"], there[file["path"]]) if file["path"] in there else None,
            }
            for file in wanted["files"]
        ]
        self._answer(200, {"files": files})

    def _batch(self, wanted: dict[str, list[dict[str, object]]]) -> None:
        objects = []
        for each in wanted["objects"]:
            upload = {"upload": {"href": f"{self.hub.address}/objects/{each['oid']}"}}
            known = each["oid"] in self.hub.objects
            objects.append(each if known else each | {"actions": upload})
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, branch: str, lines: list[bytes]) -> None:
        if self._refused("commit"):
            return
        for line in map(json.loads, lines):
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                self.hub.branches[branch][value["path"]] = base64.b64decode(value["content"])
            else:
                self.hub.branches[branch][value["path"]] = self.hub.objects[value["oid"]]
        self.hub.commits.append(f"{len(self.hub.commits):040x}")
        url = f"{self.hub.address}/me/tiny/commit/{self.hub.commits[-1]}"
        self._answer(200, {"success": True, "commitOid": self.hub.commits[-1], "commitUrl": url})

    def _tree(self) -> None:
        branch = self.hub.branches["dev" if "dev" in self.hub.branches else "main"]
        entries: list[dict[str, object]] = []
        for path, content in branch.items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": _git(content)}
            if path.endswith(_LARGE):
                oid = hashlib.sha256(content).hexdigest()
                lfs = {"oid": oid, "size": len(content), "pointerSize": 130}
                entries.append({**entry, "lfs": lfs})
            else:
                entries.append({**entry})
        self._answer(200, entries)

    def _refused(self, step: str) -> bool:
        if step in self.hub.refuse:
            self._answer(self.hub.refuse[step], {"error": "because of the test"})
        return step in self.hub.refuse

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _oid(path: str, content: bytes) -> str:
    """As the hub names a file's content in the answer to a preupload."""
    return hashlib.sha256(content).hexdigest() if path.endswith(_LARGE) else _git(content)
