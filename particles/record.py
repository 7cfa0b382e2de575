"""A published record: which files it holds, and how one of them gets here over a line that breaks."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from provenance.errors import UserError

TRIES = 5
PAUSE = 1.0
"""Seconds before the second try; each further one waits twice as long."""
TIMEOUT = (15.0, 60.0)
"""Seconds to connect, and without a byte."""
HEADWAY = 2**20
"""A try that brought this many bytes is no failure: a long file over a poor line may break more often than TRIES."""
CHUNK = 2**16
AGAIN = "what is here is kept, and running the same command again goes on where it stopped"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record: a name safe to write into a folder, bytes, `md5:<hex>` as pooch writes it, address."""

    name: str
    size: int
    checksum: str
    url: str


def connect() -> requests.Session:
    """A session that tries again, with growing pauses, while the server cannot be reached or is out of order."""
    # A server may ask for an hour in Retry-After: the user should read that, not watch a program that seems to hang.
    retry = Retry(
        total=TRIES - 1, backoff_factor=PAUSE, status_forcelist=(500, 502, 503, 504), raise_on_status=False,
        respect_retry_after_header=False,
    )  # fmt: skip
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    # Bytes as they lie on the server: offsets and sizes mean nothing in a stream packed on the way.
    session.headers["Accept-Encoding"] = "identity"
    return session


def list_files(session: requests.Session, address: str) -> list[RemoteFile]:
    """The files of the record at `address` (Zenodo: `https://zenodo.org/api/records/<number>`), in its order.

    Raises:
        UserError: no answer, no such record, an answer that lists no files, a file name that is no plain name.
    """
    _refuse_plain_http(address, address)
    with _opened(session, address, {"Accept": "application/json"}, stream=False) as response:
        try:
            files = [_remote_file(entry, address) for entry in response.json()["files"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{address}: the answer is no record with a list of files ({type(error).__name__}: {error}); open it "
                "in a browser: the service may be down or the record restricted"
            ) from error
    if not files or len({file.name for file in files}) < len(files):
        raise UserError(f"{address}: the record lists no files, or one name twice; open it in a browser")
    return files


def _remote_file(entry: dict[str, Any], address: str) -> RemoteFile:
    file = RemoteFile(entry["key"], entry["size"], entry["checksum"], entry["links"]["self"])
    # A name is written to disk: nothing that leads out of the folder, hides in it, or plays tricks in a terminal.
    if not re.fullmatch(r"(?!\.)[^/\\:]{1,200}", file.name) or not file.name.isprintable():
        raise UserError(f"{address}: refuses the file name {file.name!r}, which is no plain one; nothing is fetched")
    if type(file.size) is not int or file.size < 0:
        raise ValueError(f"{file.name} has the size {file.size!r}")
    if not re.fullmatch(r"(md5|sha256|sha512):[0-9a-f]+", file.checksum):
        raise ValueError(f"{file.name} has the checksum {file.checksum!r}")
    _refuse_plain_http(file.url, address)
    return file


@dataclass(frozen=True)
class Resuming:
    """A pooch downloader (https://www.fatiando.org/pooch) that goes on where a broken transfer stopped."""

    session: requests.Session
    file: RemoteFile
    report: Callable[[int], object]
    """Told how many bytes of the file are here."""

    def __call__(self, url: str, output_file: str | Path, pooch: object = None) -> None:
        """Bring `url` to `output_file`, whose first bytes may be here already; its checksum is for the caller to see.

        Raises:
            UserError: TRIES tries in a row made no headway, or the server refused.
        """
        part, failures = Path(output_file), 0
        while not part.is_file() or part.stat().st_size != self.file.size:
            before = size_of(part)
            if failures == TRIES:
                size = f"{before} of {self.file.size} bytes"
                raise UserError(f"{self.file.name}: the connection broke {TRIES} times in a row, at {size}; {AGAIN}")
            if failures:
                time.sleep(PAUSE * 2 ** (failures - 1))
            with suppress(requests.RequestException):  # the line broke: what came is on disk
                self._go_on(url, part)
            failures = 0 if size_of(part) - before >= HEADWAY else failures + 1

    def _go_on(self, url: str, part: Path) -> None:
        """One request: append what is missing, or start over where the old bytes cannot be trusted."""
        note, size = note_of(part), self.file.size
        known, _, tag = (note.read_text(encoding="utf-8") if note.is_file() else "").partition("\n")
        have = size_of(part) if known == self.file.checksum and size_of(part) < size else 0
        with _opened(self.session, url, {"Range": f"bytes={have}-"} if have else {}, stream=True) as response:
            if response.status_code != 200 and not self._continues(response, have, tag):
                part.unlink(missing_ok=True)
                return
            have = have if response.status_code == 206 else 0
            self._refuse_other_size(response, have)
            # Unbuffered: what has come outlives the program, even when it is killed.
            with part.open("ab" if have else "wb", buffering=0) as out:
                if not have:
                    note.write_text(f"{self.file.checksum}\n{response.headers.get('ETag', '')}", encoding="utf-8")
                for chunk in response.iter_content(CHUNK):
                    have += out.write(chunk[: size - have])
                    self.report(have)

    def _continues(self, response: requests.Response, have: int, tag: str) -> bool:
        """Whether the answer to a Range request is the rest of the very file whose beginning is here."""
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if response.status_code != 206 or span is None:
            return False
        same_tag = not tag or response.headers.get("ETag", tag) == tag
        return same_tag and int(span[1]) == have and span[2] in ("*", str(self.file.size))

    def _refuse_other_size(self, response: requests.Response, have: int) -> None:
        sent = response.headers.get("Content-Length", "")
        if sent.isdecimal() and have + int(sent) != self.file.size:
            raise UserError(
                f"{self.file.name}: the server sends {have + int(sent)} bytes where the record lists "
                f"{self.file.size}; open {response.url} in a browser: it may be another page"
            )


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def note_of(part: Path) -> Path:
    """The small file beside `part` that says which version of the remote file its bytes belong to."""
    return part.with_name(part.name + ".note")


def _opened(session: requests.Session, url: str, headers: dict[str, str], stream: bool) -> requests.Response:
    """The answer to a GET: status 200, or 206 or 416 to a Range request; anything else is a UserError."""
    try:
        response = session.get(url, headers=headers, stream=stream, timeout=TIMEOUT)
    except requests.RequestException as error:
        cause = type(getattr(error.args[0], "reason", error) if error.args else error).__name__
        raise UserError(f"{urlsplit(url).netloc}: no answer ({cause}); check the network; {AGAIN}") from error
    _refuse_plain_http(response.url, url)  # where it led us
    status, wait = response.status_code, response.headers.get("Retry-After", "")
    if status == 200 or (status in (206, 416) and "Range" in headers):
        return response
    response.close()
    remedies = {
        404: "there is nothing at this address; open it in a browser to see whether the record moved",
        429: f"too many requests; wait {wait + ' s' if wait.isdecimal() else 'a few minutes'}; {AGAIN}",
    }
    raise UserError(f"{url}: HTTP status {status}: {remedies.get(status, f'the server cannot or will not; {AGAIN}')}")


def _refuse_plain_http(url: str, home: str) -> None:
    """Https only; a server on this machine may be plain, but nobody elsewhere may send us to one."""
    local = {urlsplit(url).hostname, urlsplit(home).hostname} <= {"localhost", "127.0.0.1"}
    if urlsplit(url).scheme not in (("http", "https") if local else ("https",)):
        raise UserError(f"{url}: refused, only https addresses are read; give --api https://...")
