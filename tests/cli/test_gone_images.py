"""What is shown and found where images are gone, were moved, or lie where nothing can be written."""

import shutil
from pathlib import Path

from tiny_set import HERE, done

from retrieval.embed.store_name import store_name


def test_a_report_shows_what_the_index_keeps_where_its_images_are_gone(tiny_set):
    Path("images").rename("away")
    done("evaluate", "--leave-one-out", "--report", "left.html", "--device", "cpu")
    page = Path("left.html").read_text()
    errors = page[page.index("<h2>Most confident errors</h2>") :]
    assert 'src="data:image/jpeg;base64,' in errors
    # Those of the background are not kept.
    assert errors.count("picture not found</div>") == errors.count("shows no known landmark</p>")


def test_a_page_links_to_images_where_they_are_after_they_were_moved(tiny_set):
    Path("trip").mkdir()
    shutil.copy("images/test-arch-0.jpg", "trip/p.jpg")
    done("query", "trip", "--save", "a.html", "--sort-into", "sorted", "--mode", "move", *HERE)
    page = Path("a.html").read_text()
    assert 'href="./sorted/arch/p.jpg"' in page
    assert "trip" not in page


def test_a_store_that_is_there_is_taken_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    (tmp_path / "a.h5").touch()
    assert store_name(tmp_path / "a.csv", "store") == tmp_path / "a.h5"
