"""A hub of one's own: a server on this machine that speaks the Hugging Face hub's protocol, as far as kfbench uses it.

Repositories are made; files are pre-uploaded, large ones by the LFS protocol, committed, and resolved by HEAD and GET.
Those of data sets, `datasets/ORG/NAME`, or `…@BRANCH`, are listed too.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"


@dataclass
class Hub:
    """What the server holds, and what it was asked."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)  # repository -> {path: content}
    private: dict[str, bool] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)  # LFS: oid -> content
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def sha(self, repository: str) -> str:
        """The commit: a digest of what the repository holds."""
        held = sorted((path, hashlib.sha256(content).hexdigest()) for path, content in self.files[repository].items())
        return hashlib.sha1(json.dumps(held).encode()).hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def answer(self, value: Any = None, code: int = 200, **headers: str) -> None:
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(code)
            for name, text in headers.items():
                self.send_header(name.replace("_", "-"), text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def is_known(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def do_POST(self) -> None:
            path, content = urlsplit(self.path).path, self.body()
            hub.asked.append(f"POST {path}")
            if path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if not self.is_known():
                return self.answer({"error": "Invalid credentials"}, 401)
            if path == "/api/repos/create":
                asked = json.loads(content)
                name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
                if name.startswith("others/"):
                    return self.answer({"error": "You don't have the rights"}, 403, X_Error_Message="no rights")
                if name in hub.files:
                    return self.answer({"error": "exists"}, 409)
                hub.files[name], hub.private[name] = {}, bool(asked.get("private"))
                return self.answer({"url": f"{hub.address}/{name}", "id": name})
            if path.endswith(".git/info/lfs/objects/batch"):
                wanted = json.loads(content)["objects"]
                put = [{**o, "actions": {"upload": {"href": f"{hub.address}/lfs/{o['oid']}"}}} for o in wanted]
                return self.answer({"transfer": "basic", "objects": put})
            repository, verb = "/".join(path.split("/")[3:5]), path.split("/")[5]
            if verb == "preupload":
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(content)["files"]
                ]
                return self.answer({"files": modes})
            assert verb == "commit", path
            for line in content.splitlines():
                change = json.loads(line)
                held = change["value"]
                if change["key"] == "file":
                    hub.files[repository][held["path"]] = base64.b64decode(held["content"])
                elif change["key"] == "lfsFile":
                    hub.files[repository][held["path"]] = hub.blobs[held["oid"]]
            sha = hub.sha(repository)
            return self.answer(
                {"commitUrl": f"{hub.address}/{repository}/commit/{sha}", "commitOid": sha, "success": True}
            )

        def do_PUT(self) -> None:
            hub.asked.append("PUT lfs")
            content, oid = self.body(), self.path.rpartition("/")[2]
            assert hashlib.sha256(content).hexdigest() == oid
            hub.blobs[oid] = content
            self.answer({})

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if path.startswith("/api/datasets/"):
                return self.listing(path.removeprefix("/api/"))
            repository, _, rest = path.removeprefix("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            repository = self.branch(repository, revision)
            if repository not in hub.files or (hub.private.get(repository) and not self.is_known()):
                return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            sha = hub.sha(repository)
            if revision not in ("main", sha):
                return self.answer({"error": "no revision"}, 404, X_Error_Code="RevisionNotFound")
            if file not in hub.files[repository]:
                return self.answer({"error": "no entry"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
            content = hub.files[repository][file]
            return self.answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=sha)

        do_HEAD = do_GET

        def branch(self, repository: str, revision: str) -> str:
            """Return the name of a repository's branch, by its own or by its commit's."""
            there = [name for name in hub.files if name.startswith(f"{repository}@")]
            return next((name for name in there if revision in (name.partition("@")[2], hub.sha(name))), repository)

        def listing(self, path: str) -> None:
            """Answer what a data set's repository is, or what is in it."""
            repository = "/".join(path.split("/")[:3])
            verb, _, revision = path.removeprefix(repository).strip("/").partition("/")
            if repository not in hub.files:
                return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            branch = self.branch(repository, revision)
            if branch == repository and revision not in ("", "main", hub.sha(repository)):
                return self.answer({"error": "no revision"}, 404, X_Error_Code="RevisionNotFound")
            if verb == "tree":
                files = hub.files[branch].items()
                oid = hashlib.sha1().hexdigest()
                return self.answer([{"type": "file", "path": n, "size": len(c), "oid": oid} for n, c in files])
            return self.answer({"id": repository.removeprefix("datasets/"), "sha": hub.sha(branch), "siblings": []})

    return Handler


@contextmanager
def running() -> Iterator[Hub]:
    """Serve a hub on this machine while the block runs; its address is `hub.address`."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
