"""Place recognition: pictures of a street by where they were taken, from manifests to figures."""

import json
import os
from pathlib import Path

import pytest
from tiny_set import HERE, NETWORK, done, image, refused, run, write_csv

BUILD = ("--engine", "torch", "--thumbnails", "0", *HERE)  # an export would take longer than all the rest
N_PLACES, N_VIEWS, N_QUERIES = 4, 3, 2
STEP = 0.001  # degrees of latitude, 111 m, between two places


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A street of four places with three views each, two queries of each, and one from elsewhere; its index."""
    folder = tmp_path_factory.mktemp("street")
    before = Path.cwd()
    os.chdir(folder)
    (folder / "images").mkdir()
    rows = {"database": [], "queries": []}
    for place in range(N_PLACES):
        for i in range(N_VIEWS + N_QUERIES):
            name = f"{place}-{i}"
            image(place, i).save(f"images/{name}.jpg", quality=92)
            position = f"{48.8584 + place * STEP + i * 0.00001:.6f},2.2945"
            rows["database" if i < N_VIEWS else "queries"].append(f"{name},{position},rue {place}")
    image(0, 99).save("images/far.jpg", quality=92)
    image(1, 98).save("images/unplaced.jpg", quality=92)
    write_csv(folder / "database.csv", "id,lat,lon,street", [*rows["database"], "unplaced,,,rue 1"])
    write_csv(folder / "queries.csv", "id,lat,lon,street", [*rows["queries"], "far,35.6586,139.7454,rue 0"])
    done("embed", "database.csv", "--cells", "50m", *NETWORK, *HERE)
    done("build-index", "database.h5", *BUILD)
    os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def there(street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(street)


def measured(*arguments: object) -> dict:
    return json.loads(done("evaluate", "queries.csv", "--json", *HERE, *arguments).stdout)


def test_unlabelled_pictures_become_an_index_by_the_cells_they_were_taken_in(street: Path) -> None:
    result = run("embed", "database.csv", "--cells", "50m", *HERE)
    assert "database.csv: 12 images labelled by 4 cells of 50 m" in result.stderr
    rows = json.loads(done("info", "landmarks", "--json").stdout)
    assert (rows["n_rows"], rows["n_landmarks"], rows["n_background"]) == (12, 4, 1)


def test_a_folder_whose_landmarks_are_cells_is_not_doubted_for_having_none(tmp_path: Path) -> None:
    for i in range(2):
        image(i, 0).save(tmp_path / f"@{448000 + 100 * i}.0@5411000.0@31@U@@@@@@@{i}@@@@.jpg")
    said = done("embed", tmp_path, "--cells", "50m", "--output", tmp_path / "views.h5", *NETWORK, *HERE).stderr
    assert "2 images labelled by 2 cells of 50 m" in said
    assert "no image lies in a folder" not in said


def test_other_cells_are_another_manifest() -> None:
    assert refused("embed", "database.csv", "--cells", "100m", *HERE) == (
        "database.h5 was made with another manifest (efbe7398, now 10f61ef2): of its 13 images 12 with another "
        "landmark; give --overwrite or another file name"
    )


def test_rows_near_a_query_are_right_and_queries_without_are_told_apart() -> None:
    content = measured("--within", "25m")
    places = content["places"]
    assert (places["within_m"], places["n_place_queries"], places["n_without_place"]) == (25, 8, 1)
    assert (content["n_queries"], content["n_landmark_queries"]) == (9, 8)
    assert places["recall_at"]["20"] == 1  # all twelve rows are among the first twenty
    assert places["recall_at"]["1"] >= 0.5
    assert content["precision_at"]["20"] == pytest.approx(3 / 20)
    assert places["located"] == content["top1"]
    assert places["error_m"]["25"] < 5
    assert measured("--within", "0.2km")["precision_at"]["20"] > 3 / 20
    text = done("evaluate", "queries.csv", "--within", "25m", *HERE).stdout
    assert "within 25 m: recall @1 " in text
    assert " of 8 queries; 1 more has no picture of the index so near" in text


def test_shares_of_an_evaluation_by_distance_make_the_whole() -> None:
    whole = measured("--within", "25m", "--store", "shared.h5")
    for share in ("1/2", "2/2"):
        done("evaluate", "queries.csv", "--within", "25m", "--store", "shared.h5", "--shard", share, *HERE)
    done("join", "shared-1-of-2.outcomes", "shared-2-of-2.outcomes", "--output", "shared.outcomes")
    joined = measured("--within", "25m", "--store", "shared.h5")
    assert {**joined, "measured": None} == {**whole, "measured": None}
    result = run("evaluate", "queries.csv", "--within", "30m", "--store", "shared.h5", *HERE)
    assert "shared.outcomes is not of these queries and this index as they are: all are asked again" in result.stderr
    refusal = refused("evaluate", "queries.csv", "--within", "30m", "--store", "shared.h5", "--shard", "1/2", *HERE)
    assert refusal == "shared-1-of-2.outcomes was made with another --within; give --overwrite or another name"


def test_a_calibration_by_distance_is_made_again_by_distance(street: Path) -> None:
    done("calibrate", "queries.csv", "--within", "25m", *HERE)
    origin = json.loads(Path("landmarks/calibration.json").read_text())["origin"]
    assert origin["within_m"] == 25
    assert measured("--within", "25m")["threshold_precision"] is not None
    done("build-index", "database.h5", *BUILD, "--dimensions", "4", "--overwrite", "--recalibrate")
    again = json.loads(Path("landmarks/calibration.json").read_text())
    assert again["origin"]["within_m"] == 25
    assert again["cross_validated"]["n_landmark_queries"] == 8
    done("build-index", "database.h5", *BUILD, "--overwrite")


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        (["a,2.2945,48.8584", "far,35,139"], None),
        (
            ["a,91,2", "b,48,", "c,,2", "d,48,2"],
            [
                "2: lat is 91, not from -90 to 90; are lat and lon swapped?",
                "3: lon is missing, lat is there; give both or neither",
                "4: lat is missing, lon is there; give both or neither",
            ],
        ),
        (["a,48,2", "b,,"], ["3: lat and lon are missing"]),
        (["a,139.7,35.6"], ["2: lat is 139.7, not from -90 to 90; are lat and lon swapped?"]),
    ],
)
def test_bad_coordinates_are_refused_by_their_lines(rows: list[str], lines: list[str] | None, tmp_path: Path) -> None:
    bad = write_csv(tmp_path / "bad.csv", "id,lat,lon", rows)
    result = run("evaluate", bad, "--within", "25m", "--images", "images", *HERE)
    assert result.exit_code == 1
    if lines is None:
        assert result.stderr.splitlines()[-1] == (
            f"Error: no query of {bad} lies within 25 m of a picture of landmarks: the nearest is 6,802 km away, and "
            "with lat and lon swapped 1 of 2 queries would lie so near; give files that belong together"
        )
        return
    said = [
        line for line in result.stderr.splitlines() if line.startswith(f"{bad}:") and line[len(str(bad)) + 1].isdigit()
    ]
    assert said == [f"{bad}:{line}" for line in lines]


def test_distances_without_a_unit_and_files_without_coordinates_are_refused(tmp_path: Path) -> None:
    assert refused("evaluate", "queries.csv", "--within", "25", *HERE) == (
        "--within 25: a distance is a number with m, km or ft, such as 25m"
    )
    assert refused("embed", "database.csv", "--cells", "3 miles", *HERE) == (
        "--cells 3 miles: a distance is a number with m, km or ft, such as 25m"
    )
    plain = write_csv(tmp_path / "plain.csv", "id", ["0-0"])
    no_columns = "has no columns lat and lon, and {} goes by where pictures were taken; give both"
    assert refused("evaluate", plain, "--within", "25m", *HERE) == f"{plain} {no_columns.format('--within')}"
    output = ("--output", tmp_path / "plain.h5")
    assert refused("embed", plain, "--cells", "25m", *output, *HERE) == f"{plain} {no_columns.format('--cells')}"
    assert refused("evaluate", "--leave-one-out", "--within", "25m", *HERE) == (
        "--within does not go with --leave-one-out, which asks for the landmarks of the index"
    )


def test_the_report_of_an_evaluation_by_distance_shows_it_as_places(tmp_path: Path) -> None:
    done("evaluate", "queries.csv", "--within", "25m", "--report", tmp_path / "report.html", *HERE)
    text = (tmp_path / "report.html").read_text()
    assert "<h2>As places</h2>" in text
    assert "within 25 m: recall @1 " in text


def test_lists_of_images_are_scored_by_where_these_were_taken(tmp_path: Path) -> None:
    lists = write_csv(tmp_path / "lists.csv", "id,images", ["0-3,0-0 1-0", "1-3,0-0 0-1 1-0", "2-3,0-0", "far,0-0"])
    asked = ("score", lists, "queries.csv", "--within", "25m", "--index", "database.csv")
    content = json.loads(done(*asked, "--json").stdout)["All"]
    assert (content["n_queries"], content["n_without_place"]) == (8, 1)
    assert content["recall_at"] == {"1": 1 / 8, "5": 2 / 8, "10": 2 / 8, "20": 2 / 8}
    assert content["map_at_100"] == pytest.approx((1 / 3 + 1 / 9) / 8)
    write_csv(lists, "id,images", ["0-3,0-0", "no,0-0"])
    result = run(*asked, "--ignore-unknown")
    assert "left out: 1 id that is not in queries.csv" in result.stderr
    write_csv(lists, "id,images", ["0-3,0-0 9-9"])
    assert refused(*asked) == f"{lists}:2: 9-9 is not in database.csv; give the manifest of the index"
    write_csv(lists, "id,landmarks", ["0-3,a 0.5"])
    assert refused(*asked) == f"{lists} names landmarks; --within scores lists of images, with the header id,images"
    assert refused(*asked[:-2]) == (
        "--within and --index go together: a distance, and the manifest of the index's images"
    )
    assert refused(*asked, "--allow-disjoint") == (
        "--allow-disjoint does not go with --within, by which no labels are compared"
    )
    named = write_csv(tmp_path / "named.csv", "id,y,x,seen", ["0-3,48.8584,2.2945,by whom"])
    there = write_csv(tmp_path / "there.csv", "id,y,x", ["0-0,48.8584,2.2945", "far,0,0"])
    write_csv(lists, "id,images", ["0-3,far 0-0"])
    asked = ("score", lists, named, "--within", "25m", "--index", there, "--column", "lat=y", "--column", "lon=x")
    assert json.loads(done(*asked, "--json").stdout)["All"]["map_at_100"] == 0.5
    assert refused("score", lists, lists, "--column", "lat=y") == (
        "--column goes with --within: it says where manifests have coordinates; submissions have none"
    )


def test_a_half_without_a_query_near_a_picture_is_not_scored(tmp_path: Path) -> None:
    lists = write_csv(tmp_path / "lists.csv", "id,images", ["near,0-0", "far,0-0"])
    header, rows = "id,landmarks,lat,lon,Usage", ["near,x,48.8584,2.2945,Public", "far,y,35,139,Private"]
    asked = ("score", lists, queries := tmp_path / "asked.csv", "--within", "25m", "--index", "database.csv")
    write_csv(queries, header, rows)
    result = run(*asked, "--json")
    assert list(json.loads(result.stdout)) == ["All", "Public"]
    assert "Private is not scored: none of its queries lies within 25m of a picture of database.csv\n" in result.stderr
    write_csv(queries, header, [rows[0].replace("Public", "Ignored"), rows[1]])
    assert refused(*asked) == f"{queries}: no Public or Private query lies within 25m of a picture of database.csv"
