"""An archive is extracted whole or not at all, and nothing of it lands outside its folder."""

import shutil
import stat
import zipfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from particles.download import unzip
from provenance.errors import UserError

BYTES = np.random.default_rng(0).bytes(5000)


def archive(members: dict[str, bytes], mode: int = stat.S_IFREG) -> bytes:
    with zipfile.ZipFile(buffer := BytesIO(), "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o644) << 16
            opened.writestr(info, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


BAD_ZIPS = {
    "out": (archive({"ok.png": b"1", "../evil.png": b"2"}), "refuses '../evil.png': it leads out of the folder"),
    "deep": (archive({"a/../../evil.png": b"2"}), "it leads out of the folder"),
    "root": (archive({"/tmp/evil.png": b"2"}), "refuses '/tmp/evil.png': it leads out of the folder"),
    "backslash": (archive({"..\\evil.png": b"2"}), "it leads out of the folder"),
    "link": (archive({"a": b"/etc"}, stat.S_IFLNK), "refuses 'a': it is a link or a device"),
    "text": (b"no archive at all", "does not extract (File is not a zip file)"),
    "damaged": (archive({"a.png": BYTES}).replace(BYTES[500:600], bytes(100)), "does not extract (Bad CRC-32"),
}


def unpacked(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "sets.zip").write_bytes(data)
    unzip(tmp_path / "out" / "sets.zip", tmp_path / "out" / "sets", "md5:00")
    return tmp_path / "out" / "sets"


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_an_archive_that_cannot_be_trusted(tmp_path: Path, name: str) -> None:
    data, wanted = BAD_ZIPS[name]
    with pytest.raises(UserError) as caught:
        unpacked(tmp_path, data)
    assert str(caught.value).startswith(f"{tmp_path / 'out' / 'sets.zip'}: ")
    assert wanted in str(caught.value)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["out", "out/sets.zip"]


def test_an_archive_that_swells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, disk = archive({f"{i}.png": bytes(10_000) for i in range(50)}), SimpleNamespace(free=50 * 12288 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    with pytest.raises(UserError, match=r"sets\.zip: 614\.4 kB needed to extract it, 614\.4 kB free"):
        unpacked(tmp_path, data)
    assert not (tmp_path / "out" / "sets").exists()
    disk.free += 1
    assert (unpacked(tmp_path, data) / "49.png").read_bytes() == bytes(10_000)


def test_an_extraction_that_was_killed_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "out" / ".sets.extracting").mkdir(parents=True)
    (tmp_path / "out" / ".sets.extracting" / "half.png").write_bytes(b"ha")
    folder = unpacked(tmp_path, archive({"a/b.png": b"whole", "c.png": BYTES}))
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"a/b.png": b"whole", "c.png": BYTES, ".extracted": b"md5:00"}
    assert not (tmp_path / "out" / ".sets.extracting").exists()
