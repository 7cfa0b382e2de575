"""The profile of a small core of three bags, three depths and three repeats: what is read, placed, ringed, drawn."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from figures import depth_profile
from figures.depth_chart import OTHERS, draw_profile, layout, panels_of
from figures.depth_profile import Settings, main, parse_groups, read_frames
from particles.profile import Counts, Tally
from particles.repeats import compare_repeats
from particles.sets import DataSettings
from particles.table import read_parquet, write_parquet
from provenance.errors import UserError
from provenance.files import write_json
from provenance.run import RunSettings, started

BAGS, DEPTHS = (3046, 3136, 3303), ((0.0, 20.0), (20.0, 40.0), (40.0, 55.0))
GROUPS = {"camp": "tephra", "grim": "tephra"}
ODD = "GRIP_3136_20_40_2"
"""The sample with far too much tephra."""


def rows() -> pd.DataFrame:
    """100 particles a sample: 90 dust, 6 camp, 4 corylus; of the odd one 60 are camp."""
    frames = []
    for bag in BAGS:
        for top, bottom in DEPTHS:
            for repeat in (1, 2, 3):
                sample = f"GRIP_{bag}_{top:g}_{bottom:g}_{repeat}"
                camp = 60 if sample == ODD else 6
                frame = pd.DataFrame({"particle_id": [f"{sample}_{i}" for i in range(100)]})
                where = {"core": "GRIP", "bag": bag, "top_cm": top, "bottom_cm": bottom, "repeat": repeat}
                kinds = ["camp"] * camp + ["corylus"] * 4 + ["dust"] * (96 - camp)
                frames.append(frame.assign(**where, sample=sample, volume_ml=0.1, label=kinds, role="core"))
    return pd.concat(frames, ignore_index=True)


def counted(frame: pd.DataFrame) -> Counts:
    tally = Tally()
    tally.add(frame.rename(columns={"label": "class"}))
    return tally.counts()


# --- layout


def test_samples_stand_in_the_order_of_the_core_and_true_to_scale() -> None:
    counts = counted(rows().sample(frac=1, random_state=0))
    places = layout(counts)
    assert (np.diff(places.y) > 0).all()  # the samples of Counts are sorted down the core
    assert list(places.headings.values()) == ["GRIP bag 3046", "GRIP bag 3136", "GRIP bag 3303"]
    thick = np.array([end - begin for begin, end in places.bands])
    assert np.allclose(thick / thick[0], [1, 1, 0.75] * 3)
    assert [text for _, text in sorted(places.ticks.items())] == ["0", "20", "40", "55"] * 3
    for (begin, end), members in zip(places.bands, places.sections, strict=True):
        assert ((places.y[members] > begin) & (places.y[members] < end)).all()
    assert places.y.max() < places.height


def test_samples_without_a_depth_stand_by_name_below_the_others() -> None:
    named = pd.DataFrame({"sample": ["run 10", "run 2", "run 1"], "label": "dust"})
    places = layout(counted(named))
    assert [text for _, text in sorted(places.ticks.items())] == ["run 1", "run 2", "run 10"]
    both = counted(pd.concat([rows(), named]))
    places = layout(both)
    nowhere = both.samples["top_cm"].isna().to_numpy()
    assert places.y[nowhere].min() > places.y[~nowhere].max()
    assert "no depth known" in places.headings.values()


@pytest.mark.parametrize("bottom", [np.nan, 0.0, 0.01])
def test_points_and_slices_do_not_stretch_the_page(bottom: float) -> None:
    frame = rows().assign(bottom_cm=lambda f: f["bottom_cm"].where(f["top_cm"] > 0, bottom))
    places = layout(counted(frame))
    assert np.isfinite(places.y).all()
    assert places.height <= 3 * 62


# --- panels


def test_panels_show_shares_concentration_and_outliers_with_their_intervals() -> None:
    counts = counted(rows().assign(outlier=lambda f: f["particle_id"].str.endswith("_0")))
    dust, tephra, corylus, per_ml, outliers = panels_of(counts, compare_repeats(counts), GROUPS)
    assert [p.title.split("\n")[0] for p in (dust, tephra, corylus)] == ["dust", "tephra", "corylus"]
    odd = int(np.flatnonzero(counts.samples["sample"] == ODD)[0])
    assert np.delete(tephra.value, odd).tolist() == [6.0] * 26
    assert tephra.value[odd] == 60.0
    assert per_ml.value.tolist() == [1000.0] * 27
    assert outliers.value.tolist() == [10.0] * 27
    for panel in (dust, tephra, corylus, per_ml, outliers):
        far_low, near_low, near_high, far_high = panel.limits
        assert ((far_low < near_low) & (near_low < panel.value)).all()
        assert ((panel.value < near_high) & (near_high < far_high)).all()


def test_only_the_sample_that_deviates_is_ringed_and_only_where_it_does() -> None:
    counts = counted(rows())
    rings = {p.title.split("\n")[0]: p.ringed.tolist() for p in panels_of(counts, compare_repeats(counts), GROUPS)}
    odd = int(np.flatnonzero(counts.samples["sample"] == ODD)[0])
    assert rings == {"dust": [], "tephra": [odd], "corylus": [], "particles": []}


def test_rare_classes_share_a_panel_and_its_ring() -> None:
    frame = rows()
    kinds = ["dust"] * 50 + ["a"] * 20 + ["b"] * 20 + ["c"] * 6 + ["d"] * 4
    frame["label"] = kinds * 27
    frame.loc[(frame["sample"] == ODD) & (frame["label"] == "dust"), "label"] = "c"
    counts = counted(frame)
    panels = panels_of(counts, compare_repeats(counts), {})
    assert [p.title.split("\n")[0] for p in panels] == ["dust", "a", "b", OTHERS, "particles"]
    odd = int(np.flatnonzero(counts.samples["sample"] == ODD)[0])
    assert panels[3].value[odd] == 60.0
    assert np.delete(panels[3].value, odd).tolist() == [10.0] * 26
    assert panels[3].ringed.tolist() == [odd]


def test_where_nothing_is_classified_there_is_no_panel_of_shares(tmp_path: Path) -> None:
    bare = rows().drop(columns="label")
    (per_ml,) = panels_of(counted(bare), compare_repeats(counted(bare)), GROUPS)
    assert per_ml.title == "particles\nper mL"
    nowhere = counted(bare.drop(columns="volume_ml"))
    (only,) = panels_of(nowhere, compare_repeats(nowhere), GROUPS)
    assert (only.title, only.value.tolist()) == ("particles\ncounted", [100.0] * 27)
    assert draw_profile(nowhere, compare_repeats(nowhere), {}, tmp_path / "n.png", "t", "n").stat().st_size > 1000


def test_the_same_profile_is_the_same_bytes(tmp_path: Path) -> None:
    counts = counted(rows())
    repeats = compare_repeats(counts)
    for name in "ab":
        draw_profile(counts, repeats, GROUPS, tmp_path / f"{name}.png", "a core with $x$", "note")
    for suffix in (".png", ".pdf"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert Image.open(tmp_path / "a.png").width / 150 * 2.54 == pytest.approx(15.1, abs=0.1)  # cm, as promised
    assert sorted(p.name for p in tmp_path.glob("*.p*")) == ["a.pdf", "a.png", "b.pdf", "b.png"]


def test_one_sample_of_one_class_can_be_drawn(tmp_path: Path) -> None:
    counts = counted(pd.DataFrame({"sample": ["a name that is far too long " * 9], "label": ["dust"]}))
    assert draw_profile(counts, compare_repeats(counts), {}, tmp_path / "one.png", "t", "n").stat().st_size > 1000


# --- the command


@dataclass(frozen=True)
class Nothing:
    """A run's settings, where they do not matter."""


def packed(tmp_path: Path, frame: pd.DataFrame) -> Settings:
    folder = tmp_path / "core"
    write_parquet(frame, folder / "table.parquet")
    write_json(folder / "set.json", {"name": "core", "fingerprint": "f1"})
    return Settings(data=DataSettings(data=str(folder)))


def run_of(kind: str, name: str, table: pd.DataFrame, fingerprint: str = "f1") -> None:
    with started(kind, Nothing(), RunSettings(), {"name": "core", "fingerprint": fingerprint}) as run:
        write_parquet(table, run.path / name)


def share_of(work: Path, sample: str, name: str) -> float:
    table = read_parquet(work / "figures" / "core" / "profile-classes.parquet")
    return float(table.loc[(table["sample"] == sample) & (table["class"] == name), "share"].item())


def test_a_packed_set_is_counted_by_its_labels(tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labeled = rows().assign(role="labeled", label="dust").head(50)
    main(packed(tmp_path, pd.concat([labeled.assign(particle_id="l" + labeled["particle_id"]), rows()])))
    folder = work / "figures" / "core"
    assert {p.name for p in folder.iterdir()} == {
        "owner.json", "profile.png", "profile.pdf",
        *(f"profile-{n}.{s}" for n in ("classes", "samples", "repeats") for s in ("csv", "parquet")),
    }  # fmt: skip
    assert share_of(work, ODD, "camp") == 0.6
    assert pd.read_csv(folder / "profile-samples.csv")["total"].tolist() == [100] * 27  # the labeled ones are no core
    printed = capsys.readouterr().out
    assert "GRIP, bag 3136, 20–40 cm: its 3 repeats disagree in classes" in printed
    assert printed.count("disagree") == 1


def test_the_classifier_has_the_last_word_and_the_ranking_is_cut(tmp_path: Path, work: Path) -> None:
    frame = rows()
    told = frame[["particle_id"]].assign(predicted="grim").sample(frac=1, random_state=0)
    run_of("classifier", "index.parquet", told.iloc[1:])  # of one particle it says nothing
    run_of("classifier", "index.parquet", told.assign(predicted="other data"), fingerprint="f2")
    ranked = frame[["particle_id"]].assign(rank=np.arange(1, len(frame) + 1))
    run_of("consensus", "outliers.parquet", ranked)
    main(replace(packed(tmp_path, frame), top=150))
    table = pd.read_csv(work / "figures" / "core" / "profile-classes.csv")
    assert table.groupby("class")["n"].sum().to_dict() == {"grim": 2699, "unclassified": 1}
    samples = pd.read_csv(work / "figures" / "core" / "profile-samples.csv")
    assert samples["outliers"].tolist()[:3] == [100, 50, 0]
    assert samples["outliers_per_1000"].tolist()[:3] == [1000, 500, 0]


def test_predictions_are_taken_without_opening_a_set(work: Path) -> None:
    frame = rows().rename(columns={"label": "predicted"}).assign(confidence=0.9)
    run_of("predictions", "predictions.parquet", frame)
    main(Settings(predictions="predictions"))
    assert share_of(work, ODD, "camp") == 0.6
    assert share_of(work, "GRIP_3046_0_20_1", "corylus") == 0.04


def test_two_cores_of_one_name_have_a_folder_each(tmp_path: Path, work: Path) -> None:
    main(packed(tmp_path, rows()))
    frame = rows().rename(columns={"label": "predicted"}).assign(predicted="grim")
    run_of("predictions", "predictions.parquet", frame, fingerprint="0123456789")
    main(Settings(predictions="predictions"))
    assert share_of(work, ODD, "camp") == 0.6, "of the first nothing is overwritten"
    table = read_parquet(work / "figures" / "core-01234567" / "profile-classes.parquet")
    assert set(table["class"]) == {"grim"}
    run_of("predictions", "predictions.parquet", frame)  # of the first core itself
    main(Settings(predictions="predictions"))
    assert share_of(work, ODD, "grim") == 1


def test_predictions_are_those_of_the_data_that_is_named(tmp_path: Path, work: Path) -> None:
    frame = rows().rename(columns={"label": "predicted"}).assign(confidence=0.9)
    run_of("predictions", "predictions.parquet", frame)
    run_of("predictions", "predictions.parquet", frame.assign(predicted="other data"), fingerprint="f2")  # newer
    named = replace(packed(tmp_path, rows()), predictions="predictions")
    main(named)
    assert share_of(work, ODD, "camp") == 0.6
    write_json(tmp_path / "core" / "set.json", {"name": "core", "fingerprint": "f3"})
    with pytest.raises(UserError, match="no finished run 'predictions' on this data"):
        main(named)


def test_only_what_was_ranked_is_judged(tmp_path: Path, work: Path) -> None:
    frame = rows()
    held_back = frame[frame["particle_id"].str.endswith(("_0", "_1", "_2", "_3"))]  # 4 of 100 in each sample
    ranked = held_back[["particle_id"]].assign(rank=np.arange(1, len(held_back) + 1))
    run_of("consensus", "outliers.parquet", ranked)
    main(replace(packed(tmp_path, frame), top=6))
    samples = pd.read_csv(work / "figures" / "core" / "profile-samples.csv")
    assert samples[["total", "judged", "outliers"]].to_numpy().tolist()[:3] == [[100, 4, 4], [100, 4, 2], [100, 4, 0]]
    assert samples["outliers_per_1000"].tolist()[:3] == [1000, 500, 0]


def test_every_row_of_a_core_beside_labels_is_counted_and_its_labels_are_not_read(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = packed(tmp_path, rows().assign(role=lambda f: np.where(f.index % 2, "core", "labeled")))
    beside = replace(settings, data=replace(settings.data, core=settings.data.data))
    folder = tmp_path / "core"
    monkeypatch.setattr(depth_profile, "_opened", lambda _: ("core", folder, "f1/f1"))
    main(settings)
    assert pd.read_csv(work / "figures" / "core" / "profile-samples.csv")["total"].tolist() == [50] * 27
    main(beside)
    table = pd.read_csv(work / "figures" / "core" / "profile-classes.csv")
    assert table.set_index("class")["n"].groupby("class").sum().to_dict() == {"unclassified": 2700}


def test_numbers_are_whole_beside_long_names(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(packed(tmp_path, rows().assign(sample=lambda f: "a name of a sample " * 5 + f["sample"], top_cm=pd.NA)))
    printed = capsys.readouterr().out
    assert re.search(r"│ 60\.0±\d\.\d │", printed)
    assert "…" not in printed
    main(packed(tmp_path, rows().assign(label=pd.NA)))
    assert "unclassified" not in capsys.readouterr().out


def test_marks_are_data_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = SimpleNamespace(name="core", folder=tmp_path / "core", fingerprint="f1/labels:f4")
    monkeypatch.setattr(depth_profile, "open_set", lambda *_: opened)
    settings = packed(tmp_path, rows())
    assert depth_profile._opened(settings)[2] == "f1"
    marked = replace(settings, data=replace(settings.data, extra_labels=Path("marks.csv")))
    assert depth_profile._opened(marked)[2] == "f1/labels:f4"


def test_a_table_is_read_by_role_and_without_columns_that_it_lacks(tmp_path: Path) -> None:
    frame = rows().assign(role=["core", "labeled"] * 1350)
    write_parquet(frame, tmp_path / "t.parquet")
    read = pd.concat(read_frames(tmp_path / "t.parquet", ("particle_id", "bag", "outlier"), "core"))
    assert read["particle_id"].tolist() == frame["particle_id"].tolist()[::2]
    assert "outlier" not in read


def test_what_the_user_got_wrong_is_said(tmp_path: Path) -> None:
    nowhere = packed(tmp_path, pd.DataFrame({"particle_id": ["a"], "label": ["dust"], "role": ["core"]}))
    with pytest.raises(UserError, match=r"GRIP_<bag>_<top>_<bottom>_<repeat>"):
        main(nowhere)
    with pytest.raises(UserError, match="no finished run 'classifier/20260101'"):
        main(replace(nowhere, latent="classifier/20260101"))
    run_of("vae", "index.parquet", pd.DataFrame({"particle_id": ["a"], "reconstruction": [1.0]}))
    with pytest.raises(UserError, match=r"--latent vae: vae/.* says of no particle what it is"):
        main(replace(nowhere, latent="vae"))
    with pytest.raises(UserError, match=r"no finished run 'predictions'.*`python experiments/classify_core\.py`"):
        main(replace(nowhere, predictions="predictions"))
    with pytest.raises(UserError, match="--top must be at least 1"):
        main(replace(nowhere, top=0))
    (tmp_path / "core" / "table.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"table\.parquet: cannot be read as Parquet"):
        main(nowhere)


@pytest.mark.parametrize("text", ["tephra", "=camp", "tephra=", "a=camp+", "a=camp+camp"])
def test_a_group_is_a_name_and_classes(text: str) -> None:
    with pytest.raises(UserError, match="write NAME=CLASS"):
        parse_groups((text,))


def test_groups_are_read() -> None:
    assert parse_groups(("tephra=camp+grim", "oak=qrob")) == {"camp": "tephra", "grim": "tephra", "qrob": "oak"}
