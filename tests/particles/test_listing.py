"""FlowCam listings: what is written is read, and what is wrong with a file or a row is named."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted_run import COLUMNS, RUN, first_data_line, guid, listing_text, planted, write_run

from particles.sources.flowcam import FlowCam, is_flowcam
from particles.sources.listing import NUMBERS, WHOLE, read_listing
from particles.sources.source import BadCrop
from provenance.errors import UserError


def table(root: Path) -> pd.DataFrame:
    return pd.concat(FlowCam(root).rows(), ignore_index=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_w": "0"}, "image_w is '0', not a whole number from 1 to 8192"),
        ({"image_x": "-1"}, "image_x is '-1', not a whole number from 0 to"),
        ({"image_h": "2.5"}, "image_h is '2.5', not a whole number"),
        ({"image_y": "1e400"}, "image_y is '1e400', not a whole number"),
        ({"abd_area": "wide"}, "abd_area is 'wide', not a number"),
        ({"image_id": guid(2)[:-3]}, "not a GUID"),
        ({"collage_file": " "}, "collage_file is empty"),
        ({"timestamp": "a|b"}, f"{len(COLUMNS) + 1} fields instead of {len(COLUMNS)}"),
    ],
)
def test_a_faulty_row_is_rejected_by_file_and_line(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    write_run(tmp_path, [planted(1), planted(2) | change, planted(3)])
    rows = table(tmp_path)
    assert rows["reject"].isna().tolist() == [True, False, True]
    assert rows["reject"][1].startswith(f"{RUN}.lst:{first_data_line(1)}: ")
    assert reason in rows["reject"][1]
    assert rows["particle_id"].is_unique
    with pytest.raises(BadCrop, match="no place in a collage"):
        FlowCam(tmp_path).read(SimpleNamespace(image=rows["image"][1]))


def test_a_listing_cut_in_a_row_keeps_the_rows_before(tmp_path: Path) -> None:
    listing = write_run(tmp_path)
    whole = listing.read_bytes()
    last_row = len(whole.splitlines()[-1])
    for cut in (5, 40, last_row - 1):
        listing.write_bytes(whole[:-cut])
        rows = table(tmp_path)
        assert rows["particle_id"].tolist()[:2] == [f"{RUN}_{guid(1)}", f"{RUN}_{guid(2)}"]
        assert rows["reject"].isna().tolist() == [True, True, False], cut


def test_values_that_the_instrument_prints_as_undefined_are_missing(tmp_path: Path) -> None:
    undefined = ["nan", "-1.#IND", "-nan(ind)", "inf", ""]
    columns = ["symmetry", "circle_fit", "roughness", "edge_gradient", "circularity_hu"]
    write_run(tmp_path, [planted(1) | dict(zip(columns, undefined, strict=True)), planted(2)])
    rows = table(tmp_path)
    assert rows["reject"].isna().all()
    names = ["Symmetry", "Circle Fit", "Roughness", "Edge Gradient", "Circularity (Hu)"]
    assert rows.loc[0, names].isna().all()
    assert rows.loc[1, names].tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("017\n", "018\n", ":1: version 018 of the listing is not known, only 017"),
        ("017\n", "\n", ":1: '' where a version like 017 belongs"),
        ("num-fields|", "fields|", ":2: 'fields|.*' where num-fields"),
        ("raw_area|double\n", "raw_area\n", r":\d+: 'raw_area' where name\|type belongs"),
        ("raw_area|", "area|", r"lacks the column\(s\) raw_area"),
        ("raw_area|", "raw_perimeter|", "names the column 'raw_perimeter' twice"),
        ("|0.5|4.5|", "|0,5|4,5|", f":{first_data_line()}: cal_const is '0,5', with a decimal comma"),
        (f"|{RUN}_", "|../", f":{first_data_line()}: collage_file '../.*' leads out of the run's folder"),
        (f"|{RUN}_", "|/", "collage_file '/.*' leads out"),
        (f"|{RUN}_", "|C:\\", "collage_file 'C:.*' leads out"),
        (f"|{RUN}_", "|a\\..\\..\\", "collage_file 'a.*' leads out"),
    ],
)
def test_a_listing_that_cannot_be_trusted_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    listing = write_run(tmp_path)
    text = listing.read_text()
    assert old in text
    listing.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=f"^{tmp_path}/{RUN}.lst.*{message}") as error:
        table(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 20])
def test_a_header_that_breaks_off_is_refused(tmp_path: Path, lines: int) -> None:
    listing = write_run(tmp_path)
    listing.write_text("\n".join(listing.read_text().splitlines()[:lines]))
    with pytest.raises(UserError, match=f"{RUN}.lst"):
        table(tmp_path)


def test_a_file_without_line_ends_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "a.lst").write_bytes(b"0" * 1_000_000)
    with pytest.raises(UserError, match=r"a\.lst:1: longer than 65536 bytes"):
        table(tmp_path)


def test_encodings_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    rows = [planted(n) | {"collage_file": "Öræfa µ_000001.tif"} for n in (1, 2)]
    text = listing_text(rows)
    writings = {"utf-8": text.encode(), "bom": b"\xef\xbb\xbf" + text.encode(), "latin-1": text.encode("latin-1")}
    writings |= {f"{name}, CRLF": data.replace(b"\n", b"\r\n") for name, data in writings.items()}
    frames = {}
    for name, data in writings.items():
        (tmp_path / "a.lst").write_bytes(data)
        assert is_flowcam(tmp_path), name
        frames[name] = pd.concat(read_listing(tmp_path / "a.lst"))
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(frame, frames["utf-8"], obj=name)
    assert frames["utf-8"]["collage_file"].tolist() == ["Öræfa µ_000001.tif"] * 2


def test_frames_are_short_and_the_same_twice(tmp_path: Path) -> None:
    rows = [planted(1) | {"id": str(n), "image_id": guid(n)} for n in range(1, 24)]
    listing = write_run(tmp_path, rows)
    frames = list(read_listing(listing, chunk_rows=10))
    assert [len(frame) for frame in frames] == [10, 10, 3]
    assert pd.concat(frames)["id"].tolist() == list(range(1, 24))
    assert pd.concat(frames)["line"].tolist() == [first_data_line(n) for n in range(23)]
    pd.testing.assert_frame_equal(table(tmp_path), table(tmp_path))


cell = st.text(st.characters(blacklist_characters="|\n\r\0", blacklist_categories=["Cs"]), max_size=12)
real = st.floats(-1e9, 1e9).map(lambda value: f"{value:.4f}")


@st.composite
def listed(draw: st.DrawFn) -> dict[str, str]:
    whole = {name: str(draw(st.integers(low, min(high, 8000)))) for name, (low, high) in WHOLE.items()}
    row = {name: draw(real) for name in COLUMNS if name in NUMBERS} | whole
    row |= {"timestamp": draw(cell), "image_id": str(draw(st.uuids())).upper()}
    return row | {"collage_file": draw(st.from_regex(r"[\wÖé µ-]{1,12}\.tif", fullmatch=True))}


@given(rows=st.lists(listed(), max_size=6), order=st.permutations(COLUMNS), ends=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, rows: list[dict[str, str]], order: list[str], ends: str) -> None:
    file = tmp_path / "a.lst"
    file.write_bytes(listing_text(rows, tuple(order)).replace("\n", ends).encode())
    frames = list(read_listing(file, chunk_rows=4))
    read = [row for frame in frames for row in frame.to_dict("records")]
    assert len(read) == len(rows)
    for written, row in zip(rows, read, strict=True):
        assert pd.isna(row["reject"])
        assert {name: row[name] for name in NUMBERS} == {name: float(written[name]) for name in NUMBERS}
        assert (row["collage_file"], row["image_id"]) == (written["collage_file"].strip(), written["image_id"])


header = listing_text([]).encode()
rubbish = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=200).map(lambda tail: header + tail),
    st.lists(st.one_of(cell, real), min_size=len(COLUMNS), max_size=len(COLUMNS)).map(
        lambda fields: header + "|".join(fields).encode()
    ),
    st.tuples(st.integers(0, len(header)), st.binary(max_size=4)).map(
        lambda at: header[: at[0]] + at[1] + header[at[0] :] + b"1|2\n"
    ),
)


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore:.*Area .ABD. is")
@given(data=rubbish)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_raise_anything_but_a_user_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.lst").write_bytes(data)
    is_flowcam(tmp_path)
    try:
        rows = [row for frame in FlowCam(tmp_path).rows() for row in frame.itertuples()]
    except UserError as error:
        assert "a.lst" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return
    for row in rows:
        with pytest.raises(BadCrop):
            FlowCam(tmp_path).read(row)
