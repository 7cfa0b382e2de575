import json
from dataclasses import replace
from pathlib import Path

from planted_search import plant

from figures.draw import _forget_earlier, draw_all


def test_what_an_earlier_search_has_drawn_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "figures" / "lake"
    (folder / "clusters-ae").mkdir(parents=True)
    old = [folder / name for name in ("outliers.png", "agreement.png", "clusters-ae/hdbscan-01.png")]
    for path in [*old, folder / "agreement.pdf", folder / "mine.png", tmp_path / "other.png"]:
        path.write_text("drawn")
    _forget_earlier(folder, old)
    assert all(path.exists() for path in old)
    listed = json.loads((folder / "drawn.json").read_text())
    (folder / "drawn.json").write_text(json.dumps([*listed, "../../other.png"]))
    _forget_earlier(folder, old[:1])
    left = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert left == ["drawn.json", "mine.png", "outliers.png"]
    assert (tmp_path / "other.png").exists()


def test_another_set_of_the_same_name_leaves_the_pictures_of_the_first_alone(tmp_path: Path) -> None:
    """The second search has one latent: as another search of the same set it would remove the first one's maps."""
    two = plant(tmp_path)
    first = draw_all(two.particles, two.runs, two.clustered, two.consensus, tmp_path, flags="--data lake")
    assert "--latent planar-vae --data lake" in (first[0].parent / "explorer.html").read_text(encoding="utf-8")
    before = {path: path.read_bytes() for path in first}
    other = replace(two.particles, fingerprint="0123456789/held out:dust")
    second = draw_all(other, two.runs[1:], two.clustered[1:], two.consensus, tmp_path)
    assert {path.parent for path in second if path.name == "outliers.png"} == {tmp_path / "figures/planted-01234567"}
    assert {path: path.read_bytes() for path in first} == before
    again = replace(two.particles, fingerprint="print/held out:dust")
    third = draw_all(again, two.runs[1:], two.clustered[1:], two.consensus, tmp_path)
    assert third[0] == first[0], "the same set, and the same folder"
    assert not [path for path in set(first) - set(third) if path.exists()]
