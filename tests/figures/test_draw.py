import json
from pathlib import Path

from figures.draw import _forget_earlier


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
