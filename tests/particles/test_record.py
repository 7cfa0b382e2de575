"""What a record may list: plain names, sizes, checksums, https; everything else ends in one line."""

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from particles import record
from particles.download import Settings, main
from particles.record import list_files
from provenance.errors import UserError


class Inbox(requests.adapters.BaseAdapter):
    """Answers every address with one body, as if it had been led to `landed`."""

    def __init__(self, body: object, landed: str | None = None) -> None:
        super().__init__()
        self.body, self.landed = json.dumps(body).encode(), landed

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.raw, response.request = 200, BytesIO(self.body), request
        response.url = self.landed or str(request.url)
        return response

    def close(self) -> None:
        pass


def listed(body: object, landed: str | None = None) -> list[record.RemoteFile]:
    session = requests.Session()
    session.mount("https://", Inbox(body, landed))
    return list_files(session, "https://zenodo.example/api/records/1")


def entry(name: object, url: str = "https://zenodo.example/f") -> dict[str, Any]:
    return {"key": name, "size": 3, "checksum": "md5:00", "links": {"self": url}}


@given(name=st.text(st.sampled_from("ab./\\: \n\x00\u202e~") | st.characters(), max_size=12))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    try:
        [file] = listed({"files": [entry(name)]})
    except UserError:
        return
    assert file == record.RemoteFile(name, 3, "md5:00", "https://zenodo.example/f")
    assert (Path("/out") / name).resolve().parent == Path("/out")
    assert not name.startswith(".")
    assert name.isprintable()


@given(body=st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["files", "key", "size", "checksum", "links", "self"]), x), max_leaves=12))  # fmt: skip
def test_any_json_ends_in_one_line(body: object) -> None:
    with pytest.raises(UserError, match=r"^https://zenodo.example/api/records/1: ") as caught:
        listed(body)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://zenodo.example/f", "http://127.0.0.1/f", "file:///etc/passwd", "ftp://a/b"])
def test_a_record_elsewhere_names_https_only(url: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(url)}: refused, only https"):
        listed({"files": [entry("a.csv", url)]})
    with pytest.raises(UserError, match=f"^{re.escape(url)}: refused, only https"):
        listed({"files": [entry("a.csv")]}, landed=url)


def test_an_api_elsewhere_is_https_only() -> None:
    for api in ("http://zenodo.example/api", "file:///etc", "http://localhost.example"):
        with pytest.raises(
            UserError, match=f"^{api}/7591282: refused, only https addresses are read; give --api https"
        ):
            main(Settings("icelearning", list=True, api=api))


def test_one_name_twice() -> None:
    assert [file.name for file in listed({"files": [entry("a"), entry("b")]})] == ["a", "b"]
    with pytest.raises(UserError, match="one name twice"):
        listed({"files": [entry("a"), entry("b"), entry("a")]})
