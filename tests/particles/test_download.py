"""A record is fetched whole over lines that break, lie and stall; a server on this machine plays all of them."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particles import record
from particles.download import Settings, main
from provenance.errors import UserError

PROJECT = Path(__file__).resolve().parent.parent.parent
CHUNK = record.CHUNK
BYTES = np.random.default_rng(0).bytes(8 * CHUNK - 77)
Canned = tuple[int, dict[str, str], bytes]


class Zenodo(ThreadingHTTPServer):
    """Plays the API and the file store; each attribute is one way to go wrong."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.api = f"http://127.0.0.1:{self.server_port}/api/records"
        self.files = {"train.csv": BYTES}
        self.canned: dict[str, Canned] = {}  # "api" or "file" -> what is answered instead
        self.changed: dict[str, Any] = {}  # fields of the listed files that are not true
        self.cuts: list[int] = []  # the next answers break after so many bytes
        self.stalls = self.ignores_range = self.spoils = self.silent = False
        self.tag = '"one"'
        self.spans: list[str] = []  # Content-Range of the next answers, where it is not true
        self.over = threading.Event()
        self.visits, self.sent = 0, 0
        self.asked: list[str | None] = []  # the Range headers of file requests

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that was killed or lost patience is no news."""

    def entry(self, name: str) -> dict[str, Any]:
        data = self.files[name]
        checksum = f"md5:{hashlib.md5(data).hexdigest()}"
        links = {"self": f"{self.api}/7591282/files/{quote(name)}/content"}
        return {"key": name, "size": len(data), "checksum": checksum, "links": links} | self.changed


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Zenodo

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        zenodo, name = self.server, unquote(self.path).removesuffix("/content").rpartition("/files/")[2]
        zenodo.visits += 1
        if zenodo.silent:
            zenodo.over.wait(20)
        kind = "file" if self.path.endswith("/content") else "api"
        if kind in zenodo.canned:
            self.whole(*zenodo.canned[kind])
        elif kind == "api":
            found = self.path == "/api/records/7591282"
            listing = {"files": [zenodo.entry(name) for name in zenodo.files]}
            self.whole(200 if found else 404, {}, json.dumps(listing).encode())
        else:
            self.file(zenodo.files[name])

    def whole(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def file(self, data: bytes) -> None:
        zenodo, asked, total = self.server, self.headers["Range"], len(data)
        zenodo.asked.append(asked)
        start = int(asked[6:-1]) if asked and not zenodo.ignores_range else 0
        body = bytearray(data[start:])
        if zenodo.spoils:
            body[len(body) // 2] ^= 1
        cut = zenodo.cuts.pop(0) if zenodo.cuts else total
        zenodo.sent += len(body[:cut])
        true = f"bytes {start}-{total - 1}/{total}"
        span = {"Content-Range": zenodo.spans.pop(0) if zenodo.spans else true} if start else {}
        headers = {"ETag": zenodo.tag, "Content-Length": str(total - start)} | span
        self.whole(206 if start else 200, headers, bytes(body[:cut]))
        if cut < len(body):
            if zenodo.stalls:
                zenodo.over.wait(20)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def playing() -> Iterator[Zenodo]:
    with pytest.MonkeyPatch.context() as patch, Zenodo() as server:
        patch.setattr(record, "PAUSE", 0.0)
        patch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture
def zenodo() -> Iterator[Zenodo]:
    with playing() as server:
        yield server


def download(zenodo: Zenodo, out: Path | None, **options: Any) -> None:
    main(Settings("icelearning", out, api=zenodo.api, **options))


def refused(zenodo: Zenodo, out: Path | None, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        download(zenodo, out, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def archive(members: dict[str, bytes], mode: int = stat.S_IFREG) -> bytes:
    with zipfile.ZipFile(buffer := BytesIO(), "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o644) << 16
            opened.writestr(info, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_record_is_fetched_and_extracted_once(zenodo: Zenodo, tmp_path: Path) -> None:
    out, crops = tmp_path / "new" / "out", {"data/dust/a 1.png": b"dust", "data/b.png": b"", "train.csv": BYTES[:99]}
    zenodo.files |= {"sets.zip": archive(crops), "empty [1].txt": b""}
    download(zenodo, out)
    extracted = {f"sets/{name}": data for name, data in crops.items()}
    mark = {"sets/.extracted": zenodo.entry("sets.zip")["checksum"].encode()}
    assert content(out) == zenodo.files | extracted | mark
    (out / "sets.zip").unlink()
    download(zenodo, out)
    assert len(zenodo.asked) == 3, "nothing came twice, not even the archive that was deleted after extraction"
    download(zenodo, out, extract=False)
    assert content(out) == zenodo.files | extracted | mark


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, len(BYTES)), max_size=4), ignores_range=st.booleans())
def test_a_breaking_line_gives_the_same_bytes(cuts: list[int], ignores_range: bool) -> None:
    with playing() as zenodo, pytest.MonkeyPatch.context() as patch:
        out = Path(os.environ["NUNATAK_WORK"]) / "cut"
        shutil.rmtree(out, ignore_errors=True)
        patch.setattr(zenodo, "cuts", list(cuts))
        patch.setattr(zenodo, "ignores_range", ignores_range)
        download(zenodo, out)
        assert content(out) == {"train.csv": BYTES}


def test_a_broken_transfer_goes_on_where_it_stopped(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.cuts = [3 * CHUNK, 2 * CHUNK + 5]
    download(zenodo, tmp_path)
    assert zenodo.asked == [None, f"bytes={3 * CHUNK}-", f"bytes={5 * CHUNK}-"]
    assert zenodo.sent < len(BYTES) + CHUNK
    assert content(tmp_path) == {"train.csv": BYTES}


def test_a_server_without_ranges_starts_over(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.cuts, zenodo.ignores_range = [3 * CHUNK], True
    download(zenodo, tmp_path)
    assert zenodo.asked == [None, f"bytes={3 * CHUNK}-"]
    assert zenodo.sent == 3 * CHUNK + len(BYTES)
    assert content(tmp_path) == {"train.csv": BYTES}


def begun(zenodo: Zenodo, out: Path, chunks: int) -> None:
    """Leave a .part of so many chunks behind, with wrong bytes in it, so that keeping them cannot go unnoticed."""
    zenodo.cuts = [chunks * CHUNK] + [0] * (record.TRIES - 1)
    refused(zenodo, out)
    (out / "train.csv.part").write_bytes(bytes(chunks * CHUNK))
    zenodo.asked.clear()


@pytest.mark.parametrize("change", ["tag", "content", "grown", "shrunk"])
def test_another_remote_file_is_fetched_from_its_start(zenodo: Zenodo, tmp_path: Path, change: str) -> None:
    begun(zenodo, tmp_path, 3)
    new = {"tag": BYTES, "content": BYTES[::-1], "grown": BYTES + BYTES, "shrunk": BYTES[: 2 * CHUNK]}[change]
    zenodo.files["train.csv"], zenodo.tag = new, '"two"'
    download(zenodo, tmp_path)
    assert zenodo.asked == ([f"bytes={3 * CHUNK}-", None] if change == "tag" else [None])
    assert content(tmp_path) == {"train.csv": new}


@pytest.mark.parametrize("span", [f"bytes 0-9/{len(BYTES)}", f"bytes {3 * CHUNK}-{4 * CHUNK}/{4 * CHUNK}", "all"])
def test_a_rest_that_does_not_fit_is_not_appended(zenodo: Zenodo, tmp_path: Path, span: str) -> None:
    begun(zenodo, tmp_path, 3)
    zenodo.spans = [span]
    download(zenodo, tmp_path)
    assert zenodo.asked == [f"bytes={3 * CHUNK}-", None]
    assert content(tmp_path) == {"train.csv": BYTES}


def test_more_than_the_whole_is_thrown_away(zenodo: Zenodo, tmp_path: Path) -> None:
    begun(zenodo, tmp_path, 3)
    (tmp_path / "train.csv.part").write_bytes(BYTES + b"more")
    download(zenodo, tmp_path)
    assert zenodo.asked == [None]
    assert content(tmp_path) == {"train.csv": BYTES}


def test_an_unchanged_remote_file_is_trusted_and_the_checksum_is_not_fooled(zenodo: Zenodo, tmp_path: Path) -> None:
    begun(zenodo, tmp_path, 3)
    found = hashlib.md5(bytes(3 * CHUNK) + BYTES[3 * CHUNK :]).hexdigest()
    assert f"expected md5:{hashlib.md5(BYTES).hexdigest()}, found md5:{found}" in refused(zenodo, tmp_path)
    assert zenodo.asked == [f"bytes={3 * CHUNK}-"]


def test_one_wrong_byte(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.spoils = True
    assert refused(zenodo, tmp_path).startswith(f"train.csv: expected md5:{hashlib.md5(BYTES).hexdigest()}, found md5:")
    assert "train.csv.part" not in content(tmp_path)
    zenodo.spoils = False
    download(zenodo, tmp_path)
    assert zenodo.asked == [None, None]
    assert content(tmp_path) == {"train.csv": BYTES}


def test_a_line_that_never_holds(zenodo: Zenodo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(record, "PAUSE", 1.0)
    monkeypatch.setattr(record, "time", SimpleNamespace(sleep=waited.append))
    zenodo.cuts = [CHUNK] * 5
    assert refused(zenodo, tmp_path).startswith(f"train.csv: the connection broke 5 times in a row, at {5 * CHUNK} of")
    assert waited == [1, 2, 4, 8]
    assert (tmp_path / "train.csv.part").read_bytes() == BYTES[: 5 * CHUNK]
    download(zenodo, tmp_path)
    assert zenodo.asked[-1] == f"bytes={5 * CHUNK}-"
    assert content(tmp_path) == {"train.csv": BYTES}


def test_a_long_file_may_break_more_often(zenodo: Zenodo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "HEADWAY", CHUNK)
    zenodo.cuts = [CHUNK] * 7
    download(zenodo, tmp_path)
    assert len(zenodo.asked) == 8
    assert content(tmp_path) == {"train.csv": BYTES}


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_killed_download_goes_on(zenodo: Zenodo, tmp_path: Path, sign: signal.Signals, code: int) -> None:
    zenodo.cuts, zenodo.stalls = [3 * CHUNK], True
    command = [sys.executable, "-m", "particles.download", "icelearning", "--out", "out", "--api", zenodo.api]
    started = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(PROJECT)},
        # where tests run in the background of a shell, Ctrl-C is ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    part, deadline = tmp_path / "out" / "train.csv.part", time.monotonic() + 60
    while record.size_of(part) < 3 * CHUNK and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(sign)
    started.communicate(timeout=60)
    assert started.returncode == code
    assert part.read_bytes() == BYTES[: 3 * CHUNK]
    download(zenodo, tmp_path / "out")
    assert zenodo.asked == [None, f"bytes={3 * CHUNK}-"]
    assert content(tmp_path / "out") == {"train.csv": BYTES}


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


def test_too_little_disk(zenodo: Zenodo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zenodo.files["sets.zip"] = archive({"a.png": BYTES[:300_000]})
    need = len(BYTES) + 2 * len(zenodo.files["sets.zip"])
    with_free(monkeypatch, need - 1)
    assert "1.1 MB needed (824.4 kB to fetch, the rest to extract), 1.1 MB free" in refused(zenodo, tmp_path)
    assert zenodo.asked == []
    with_free(monkeypatch, need)
    download(zenodo, tmp_path)
    assert (tmp_path / "sets" / "a.png").read_bytes() == BYTES[:300_000]


def test_what_is_here_needs_no_disk(zenodo: Zenodo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zenodo.cuts = [3 * CHUNK] + [0] * 4
    refused(zenodo, tmp_path)
    with_free(monkeypatch, len(BYTES) - 3 * CHUNK - 1)
    assert "needed" in refused(zenodo, tmp_path)
    with_free(monkeypatch, len(BYTES) - 3 * CHUNK)
    download(zenodo, tmp_path)
    with_free(monkeypatch, 0)
    download(zenodo, tmp_path)
    assert content(tmp_path) == {"train.csv": BYTES}


EVIL = ["../x", "/etc/x", "a/b", "..", ".", "", "a\\b", "C:x", ".bashrc", "a\nb", "a\x1b[2J", "x" * 300]


@pytest.mark.parametrize("name", EVIL)
def test_a_name_that_is_no_plain_one(zenodo: Zenodo, tmp_path: Path, name: str) -> None:
    zenodo.changed = {"key": name}
    assert f"refuses the file name {name!r}" in refused(zenodo, tmp_path / "out")
    assert content(tmp_path) == {}
    assert zenodo.asked == []


PAGE = b"<!doctype html><html>maintenance</html>"
BROKEN: dict[str, tuple[Canned, str]] = {
    "404": ((404, {}, PAGE), "HTTP status 404: there is nothing at this address"),
    "429": ((429, {"Retry-After": "37"}, PAGE), "HTTP status 429: too many requests; wait 37 s; what is here is kept"),
    "429 silent": ((429, {}, b""), "HTTP status 429: too many requests; wait a few minutes"),
    "503": ((503, {"Retry-After": "3600"}, PAGE), "HTTP status 503: the server cannot or will not"),
    "403": ((403, {}, b""), "HTTP status 403: the server cannot or will not"),
    "206": ((206, {}, b"{}"), "HTTP status 206"),
}


@pytest.mark.parametrize("kind", ["api", "file"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_server_that_refuses(zenodo: Zenodo, tmp_path: Path, kind: str, name: str) -> None:
    zenodo.canned[kind], wanted = BROKEN[name]
    said = refused(zenodo, tmp_path)
    assert said.startswith(f"{zenodo.api}/7591282{'/files/train.csv/content' if kind == 'file' else ''}: {wanted}")
    assert zenodo.visits == (kind == "file") + (record.TRIES if name == "503" else 1)


@pytest.mark.parametrize(
    "body", [PAGE, b"", b"{}", b"[]", b'{"files": {}}', b'{"files": []}', b'{"files": [{}]}', b"\xff"]
)
def test_an_answer_that_is_no_list_of_files(zenodo: Zenodo, tmp_path: Path, body: bytes) -> None:
    zenodo.canned["api"] = (200, {}, body)
    assert re.match(f"{zenodo.api}/7591282: the (answer is no record|record lists no files)", refused(zenodo, tmp_path))


WRONG = [{"size": -1}, {"size": "5"}, {"size": True}, {"checksum": "00ff"}, {"checksum": "crc:0"}, {"links": {}}]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_listed_file_that_cannot_be_verified(zenodo: Zenodo, tmp_path: Path, change: dict[str, Any]) -> None:
    zenodo.changed = change
    assert "the answer is no record with a list of files" in refused(zenodo, tmp_path)
    assert zenodo.asked == []


def test_another_page_in_place_of_the_file(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.canned["file"] = (200, {"Content-Type": "text/html"}, PAGE)
    said = refused(zenodo, tmp_path)
    assert f"train.csv: the server sends {len(PAGE)} bytes where the record lists {len(BYTES)}" in said
    assert content(tmp_path) == {}


def test_a_server_that_says_nothing(zenodo: Zenodo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "TIMEOUT", (0.2, 0.2))
    zenodo.silent = True
    host = zenodo.api.split("/")[2]
    assert refused(zenodo, tmp_path).startswith(f"{host}: no answer (ReadTimeoutError); check the network")
    assert zenodo.visits == record.TRIES


def test_nobody_at_the_address(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.shutdown()
    zenodo.server_close()
    assert "no answer (NewConnectionError); check the network" in refused(zenodo, tmp_path)


def test_what_lies_in_the_way_is_left_alone(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.files["sets.zip"] = archive({"a.png": b"1"})
    (tmp_path / "sets").mkdir()
    assert "sets: is in the way of sets.zip, not extracted from it" in refused(zenodo, tmp_path)
    (tmp_path / "sets").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".extracted").write_text(zenodo.entry("sets.zip")["checksum"])
    (tmp_path / "sets").symlink_to(tmp_path / "elsewhere")
    assert "sets: is in the way of sets.zip" in refused(zenodo, tmp_path)
    (tmp_path / "train.csv").write_bytes(bytes(len(BYTES)))
    assert "train.csv: differs from the record's file of that name" in refused(zenodo, tmp_path, extract=False)
    assert (tmp_path / "train.csv").read_bytes() == bytes(len(BYTES))
    assert zenodo.asked == []


@pytest.mark.parametrize("name", ["train.csv", "train.csv.part", "train.csv.part.note"])
def test_nothing_is_written_through_a_link(zenodo: Zenodo, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    assert f"{name}: is a link" in refused(zenodo, tmp_path / "out")
    assert not (tmp_path / "mine").exists()


def test_some_files_only(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.files |= {"test_1.csv": b"1", "test_2.csv": b"22", "notes.txt": b"3"}
    download(zenodo, tmp_path, only=("test*", "*.txt"))
    assert content(tmp_path) == {"test_1.csv": b"1", "test_2.csv": b"22", "notes.txt": b"3"}
    assert "--only *.png: no file of the record has such a name; it holds train.csv, test_1" in refused(
        zenodo, tmp_path, only=("*.txt", "*.png")
    )


def test_a_list_fetches_nothing(zenodo: Zenodo, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    zenodo.files["big [1].zip"] = bytes(2_000_000)
    download(zenodo, None, list=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if "md5:" in line]
    assert re.sub("[│┃]", " ", lines[1]).split()[:4] == ["big", "[1].zip", "2.0", "MB"]
    assert hashlib.md5(BYTES).hexdigest() in lines[0]
    assert zenodo.asked == []
    assert "--out DIR" in refused(zenodo, None)


def test_import_does_not_touch_the_network() -> None:
    code = (
        "import sys; seen = []; sys.addaudithook(lambda e, a: seen.append(e) if e.startswith('socket.') else None); "
        "import particles.download; print([e for e in seen if e in ('socket.connect', 'socket.getaddrinfo')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
