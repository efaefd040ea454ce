"""`lmr query --explain`: a page for each image, the numbers behind it, and the folder that holds them."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_set import HERE, LABELS, SIDE, done, image, listing, misused, refused, run, run_and_die

import lmr
from cli.report.answers import explanation_names
from index.explain.explanation import open_classifier as open_explained
from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import install_hint
from retrieval.models.checkpoint import load_model, save_model
from retrieval.train.classifier import open_classifier, save_classifier
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss

ARCH = "images/test-arch-0.jpg"
OTHER = "images/test-other-5.jpg"
OF_SALIENCY = ("saliency", "grad-cam", "grad-cam-saliency")
MAPS = ("similarity", *(f"{of}{form}" for of in OF_SALIENCY for form in ("", "-guided", "-rectified")))
HOSTILE = "<script>alert(1)<\u2044script>\u202e \"'&{{7*7}}.jpg"


@pytest.fixture
def with_maps() -> None:
    """Asks for maps, which other tests do without: they take most of the time."""


@pytest.fixture(autouse=True)
def without_maps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "with_maps" not in request.fixturenames:
        monkeypatch.setattr("index.explain.comparison._maps", lambda *_: (None, ""))


def explain(*images: object, to: str = "why") -> str:
    """What is said of the folder."""
    return done("query", *images, "--explain", to, *HERE).stderr.splitlines()[-1]


def numbers(name: str, folder: str = "why") -> dict:
    return json.loads(Path(folder, name, "explanation.json").read_text())


def test_each_image_has_a_page_images_and_numbers(tiny_set, with_maps):
    assert explain(ARCH, OTHER) == "why: 2 pictures explained; open why/NAME/explanation.html"
    files = {"explanation.html", "explanation.json", "votes.png", "match.png", *(f"map-{name}.png" for name in MAPS)}
    assert set(listing(Path("why"))) == {
        *("explanations.json", "made-of.json"),
        *(f"{name}/{file}" for name in ("test-arch-0", "test-other-5") for file in files),
    }
    listed = json.loads(Path("why/explanations.json").read_text())["explanations"]
    assert listed == [
        {"image": ARCH, "folder": "test-arch-0", "unreadable": None},
        {"image": OTHER, "folder": "test-other-5", "unreadable": None},
    ]
    with Image.open("why/test-arch-0/votes.png") as votes:
        assert votes.width > 400
        assert len(votes.convert("RGB").getcolors(1 << 24)) > 50


def test_the_numbers_are_those_of_the_answer_and_sum_to_its_logit(tiny_set):
    explain(ARCH, OTHER)
    answers = json.loads(done("query", ARCH, OTHER, "--json", *HERE).stdout)
    for name, answer in zip(("test-arch-0", "test-other-5"), answers, strict=True):
        told = numbers(name)
        assert told["answer"] == answer
        votes = told["votes"]
        assert sum(term["amount"] for term in votes["terms"]) == votes["logit"] == votes["landmarks"][0]["logit"]
        assert [one["landmark_id"] for one in votes["landmarks"]][:5] == [s["landmark_id"] for s in answer["landmarks"]]
        near = [one for of in votes["landmarks"] for one in of["neighbours"]]
        assert sorted(one["image_id"] for one in near) == sorted(n["image_id"] for n in answer["neighbours"])
        best = votes["landmarks"][0]
        assert told["decided"] == max(best["neighbours"], key=lambda one: one["part"])["image_id"]


def test_the_page_says_what_was_answered_and_why(tiny_set):
    explain(ARCH)
    page, told = Path("why/test-arch-0/explanation.html").read_text(), numbers("test-arch-0")
    answer, votes = told["answer"], told["votes"]
    assert f"<h1>The Great Arch (arch), confidence {answer['confidence']:.3f}</h1>" in page
    for of in votes["landmarks"]:
        for one in of["neighbours"]:
            assert f"<td>{one['part']:.4f}</td>".replace("-", "−") in page
    for term in votes["terms"]:
        assert f"<td>{term['amount']:+.4f}</td>".replace("-", "−") in page
    assert f"A landmark is named from a confidence of {answer['threshold']:.3f} on" in page
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:|\.)', page) == []


def test_an_image_that_is_turned_away_is_explained_by_what_came_nearest(tiny_set):
    explain(OTHER)
    page, told = Path("why/test-other-5/explanation.html").read_text(), numbers("test-other-5")
    assert told["answer"]["landmark_id"] is None
    assert "<h1>no known landmark; nearest was " in page
    assert re.search(r"here it is \d\.\d{3} less than that", page)
    assert told["decided"] in {n["image_id"] for n in told["answer"]["neighbours"]}


def test_the_same_command_finds_it_finished_and_another_is_refused(tiny_set):
    explain(ARCH)
    before = listing(Path("why"))
    assert explain(ARCH) == "why: finished already, nothing to do"
    assert refused("query", ARCH, "--explain", "why", "--top", "3", *HERE) == (
        "why was made with another --top (5, now 3); give --overwrite or another name"
    )
    assert refused("query", OTHER, "--explain", "why", *HERE) == (
        "why was made with another set of pictures; give --overwrite or another name"
    )
    assert listing(Path("why")) == before
    Path("why/test-arch-0/votes.png").write_bytes(b"")
    assert refused("query", ARCH, "--explain", "why", *HERE) == (
        "why/test-arch-0/votes.png was changed since it was written; give --overwrite or another name"
    )
    done("query", OTHER, "--explain", "why", "--overwrite", *HERE)
    assert {path.name for path in Path("why").iterdir()} == {"explanations.json", "made-of.json", "test-other-5"}


def test_info_tells_a_folder_of_explanations_and_names_a_file_in_it_that_was_changed(tiny_set):
    Path("broken.jpg").write_bytes(b"")
    done("query", ARCH, OTHER, "broken.jpg", "--explain", "why", *HERE)
    told = {"what": "folder of explanations", "pictures": 2, "unreadable": 1}
    whole = json.loads(done("info", "why", "--verify", "--json").stdout)
    n_files = len(listing(Path("why"))) - 1
    assert whole == {**told, "verified": f"{n_files} files are as they were written"}
    votes = Path("why/test-arch-0/votes.png")
    votes.write_bytes(votes.read_bytes() + b"x")
    assert json.loads(done("info", "why", "--json").stdout) == told
    changed = "why/test-arch-0/votes.png was changed since it was written; explain again with --overwrite"
    assert refused("info", "why", "--verify") == changed
    assert refused("info", ".", "--verify") == changed
    Path("why/made-of.json").write_text("{}")
    assert refused("info", "why", "--verify") == (
        "why/made-of.json is missing or was changed since it was written; explain again with --overwrite"
    )
    Path("why/explanations.json").write_text("{}")
    assert refused("info", "why") == (
        "why/explanations.json is damaged or of another version (Object missing required field `explanations`); "
        "explain again with --overwrite"
    )


def test_a_folder_of_other_things_is_never_replaced(tiny_set):
    before = listing(Path("images"))
    assert refused("query", ARCH, "--explain", "images", "--overwrite", *HERE) == (
        "images exists and holds other things; give another name"
    )
    assert listing(Path("images")) == before
    assert refused("query", ARCH, "--explain", "train.csv", "--overwrite", *HERE) == (
        "train.csv is not a folder; give another name"
    )


def test_images_of_one_name_and_odd_ones_have_folders_of_their_own(tiny_set):
    for number, folder in enumerate(("a", "b", "A")):
        Path(folder).mkdir()
        image(number, 900).save(f"{folder}/p.jpg")
    image(1, 903).save("a/P.png")
    image(1, 904).save(f"a/{HOSTILE}")
    explain("a", "b", "A")
    listed = json.loads(Path("why/explanations.json").read_text())["explanations"]
    folders = [one["folder"] for one in listed]
    assert len({folder.casefold() for folder in folders}) == len(folders) == 5
    assert all(Path("why", folder, "explanation.html").is_file() for folder in folders)
    assert {path.name for path in Path("why").iterdir()} == {"explanations.json", "made-of.json", *folders}
    (own,) = (one["folder"] for one in listed if "alert" in one["image"])
    page = Path("why", own, "explanation.html").read_text()
    assert own.isprintable()
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["a/p.jpg", "b/p.png", "c/P-2.jpg", "d/p.jpg"], ["p", "p-2", "P-2-2", "p-3"]),
        (["http://x.org/a/b.jpg?size=3#top", "https://x.org/", "https://x.org"], ["b", "picture", "picture-2"]),
        (["/tmp/..", "..", "c.tar/../x.jpg", "a\udcff.jpg"], ["%2E%2E", "%2E.-2", "x", "a%5Cxff"]),
        (["caf\u00e9.jpg", "cafe\u0301.jpg"], ["café", "cafe\u0301-2"]),
    ],
)
def test_names_never_meet_and_never_lead_elsewhere(images, names):
    assert list(explanation_names(images)) == names


def test_what_cannot_be_read_is_said_and_the_others_are_explained(tiny_set):
    Path("cut.jpg").write_bytes(Path(ARCH).read_bytes()[:300])
    result = done("query", ARCH, "cut.jpg", "--explain", "why", *HERE)
    assert result.stderr.splitlines() == [
        "why: 1 picture explained; open why/test-arch-0/explanation.html",
        "1 of 2 pictures is unreadable",
    ]
    (_, cut) = json.loads(Path("why/explanations.json").read_text())["explanations"]
    assert (cut["image"], cut["folder"]) == ("cut.jpg", None)
    assert cut["unreadable"]
    result = run("query", "cut.jpg", "--explain", "none", *HERE)
    assert result.exit_code == 1
    assert "none: nothing to explain, as no picture can be read" in result.stderr.splitlines()
    assert not Path("none").exists()


def forget(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    """Makes one image, of those that all tests share, one that is not there."""

    def read(path: str, *limits: object) -> bytes:
        if path == gone:
            raise UnreadableError("not found")
        return Path(path).read_bytes()

    monkeypatch.setattr("retrieval.images.given.read_image", read)


def test_a_neighbour_that_is_gone_is_shown_as_the_index_kept_it(tiny_set, monkeypatch):
    landmarks = lmr.open_index("landmarks", device="cpu", threads=1, workers=1)
    told = landmarks.explain(ARCH)
    path = told.votes.decisive.neighbour.path
    assert told.notes == []
    assert repr(told) == f"<Explanation '{ARCH}': The Great Arch (arch), confidence {told.answer.confidence:.3f}>"
    assert told.row.pixels.size == told.query.pixels.size == (SIDE, SIDE)
    forget(monkeypatch, path)
    told = landmarks.explain(ARCH)
    assert told.notes == [f"{path} cannot be shown: not found; the index has kept this thumbnail of it"]
    assert told.row.pixels.size == (SIDE, SIDE)
    explain(ARCH)
    assert told.notes[0] in Path("why/test-arch-0/explanation.html").read_text()


def test_a_neighbour_that_is_gone_and_was_not_kept_is_told(tiny_set, monkeypatch):
    done("build-index", "--thumbnails", "0", "--output", "bare", "--device", "cpu")
    landmarks = lmr.open_index("bare", device="cpu", threads=1, workers=1)
    path = landmarks.explain(ARCH).votes.decisive.neighbour.path
    forget(monkeypatch, path)
    told = landmarks.explain(ARCH)
    assert told.row.pixels is None
    assert told.notes == [
        f"{path} cannot be shown: not found; the index has kept no thumbnail of it (lmr build-index keeps some)",
        "it could not be matched, as the index has no local features of it",
    ]
    assert told.votes.is_calibrated is False
    assert sum(term.amount for term in told.votes.terms) == told.votes.logit
    done("query", ARCH, "--index", "bare", "--explain", "why", *HERE)
    page = Path("why/test-arch-0/explanation.html").read_text()
    assert not Path("why/test-arch-0/match.png").exists()
    assert "What adds up to what answers are ranked by" in page
    assert told.notes[0] in page


def photo(side: int, shift: int) -> Image.Image:
    """A part of one picture with corners to find, that begins so many pixels farther right."""
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 255, (24, 30, 3), dtype=np.uint8)
    whole = Image.fromarray(blocks).resize((480, 384), Image.Resampling.NEAREST)
    return whole.crop((shift, 20, shift + side, 20 + side))


@pytest.fixture
def with_photo(tiny_set):
    """An index of photographs that have corners to find."""
    Path("shown/block").mkdir(parents=True)
    photo(300, 0).save("shown/block/one.png")
    done("embed", "shown", "--model", "model", "--output", "shown.h5", *HERE)
    done("build-index", "shown.h5", "--output", "blocks", "--whitening-power", "0", "--device", "cpu")
    photo(300, 80).save("asked.png")
    return tiny_set


def test_the_match_says_where_the_image_lies_in_the_one_that_decided(with_photo):
    said = done("query", "asked.png", "--index", "blocks", "--explain", "why", *HERE)
    assert said.exit_code == 0
    match = numbers("asked")["match"]
    assert match["local"] == "rootsift"
    assert match["sizes"] == [[300, 300], [300, 300]]
    assert match["n_inliers"] == len(match["inliers"]) >= 35
    moved = np.array(match["inliers"])
    assert np.mean(np.abs(moved[:, 2:] - moved[:, :2] - [80, 0]).max(axis=1) < 3) > 0.9
    page = Path("why/asked/explanation.html").read_text()
    assert f"{match['n_inliers']} of {match['n_matches']} matches agree on one" in page
    assert "<h2>The picture that decided</h2>" in page


def test_verified_neighbours_are_explained_by_the_features_of_the_index(with_photo):
    done("embed", "shown", "--model", "model", "--output", "local.h5", "--local", "rootsift", *HERE)
    built = ("--output", "local", "--local", "--whitening-power", "0", "--thumbnails", "0", "--device", "cpu")
    done("build-index", "local.h5", *built)
    Path("shown/block/one.png").unlink()
    done("query", "asked.png", "--index", "local", "--verify", "--explain", "why", *HERE)
    told = numbers("asked")
    (near,) = told["votes"]["landmarks"][0]["neighbours"]
    assert near["inliers"] == told["match"]["n_inliers"] == told["answer"]["neighbours"][0]["inliers"] >= 35
    assert not Path("why/asked/match.png").exists()
    page = Path("why/asked/explanation.html").read_text()
    assert f"<td>{near['inliers']}</td>" in page
    assert f"<p>Verified: {near['inliers']} inliers. A neighbour is verified from 35 inliers on.</p>" in page
    asked = ("query", "asked.png", "--index", "local", *HERE)
    assert refused(*asked, "--explain", "why") == "why was made with --verify; give --overwrite or another name"
    done(*asked, "--explain", "plain")
    assert "erified from" not in Path("plain/asked/explanation.html").read_text()
    assert refused(*asked, "--explain", "plain", "--verify") == (
        "plain was made without --verify; give --overwrite or another name"
    )


@pytest.mark.parametrize(
    "asked",
    [
        Image.new("RGB", (300, 300), "white"),
        Image.new("RGB", (1, 1), "black"),
        Image.new("RGB", (1500, 3)),
        photo(40, 0),
    ],
    ids=["blank", "one-pixel", "strip", "small"],
)
def test_images_without_keypoints_are_explained_too(with_photo, asked):
    asked.save("asked.png")
    done("query", "asked.png", "--index", "blocks", "--explain", "why", *HERE)
    match = numbers("asked")["match"]
    assert (match["n_inliers"], match["geometry"], match["model"]) == (0, "none", None)
    assert Path("why/asked/match.png").is_file()
    assert "local features do not tell that both show the same thing" in Path("why/asked/explanation.html").read_text()


def test_without_opencv_the_images_are_shown_and_not_matched(with_photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    done("query", "asked.png", "--index", "blocks", "--explain", "why", *HERE)
    told = numbers("asked")
    assert told["match"] is None
    (note,) = told["notes"]
    assert note.startswith("the images are not matched: ")
    assert note.endswith("; pip install 'lmr[local]'")
    assert Path("why/asked/match.png").is_file()


def test_the_places_of_both_images_sum_to_their_similarity(tiny_set, with_maps):
    explain(ARCH)
    told = numbers("test-arch-0")
    score = told["votes"]["landmarks"][0]["neighbours"][0]["score"]
    assert told["maps"]["score"] == pytest.approx(score, abs=0.01)  # which is of bfloat16 descriptors in float16
    maps = {one["name"]: one["sides"] for one in told["maps"]["maps"]}
    assert tuple(maps) == MAPS
    for side in maps["similarity"]:
        assert np.sum(side["values"]) == pytest.approx(side["sum"], abs=1e-5)
        assert side["sum"] + side["rest"] == pytest.approx(told["maps"]["score"], abs=1e-5)
    page = Path("why/test-arch-0/explanation.html").read_text()
    assert page.count('<img src="data:image/webp') == 1 + len(MAPS)


def test_a_gone_image_has_no_map_and_the_query_has(tiny_set, with_maps, monkeypatch):
    landmarks = lmr.open_index("landmarks", device="cpu", threads=1, workers=1)
    forget(monkeypatch, landmarks.explain(ARCH).votes.decisive.neighbour.path)
    maps = landmarks.explain(ARCH).maps.maps
    assert {one.name for one in maps} == set(MAPS)
    assert all(one.row is None for one in maps)


def test_without_captum_there_are_similarity_maps_alone(tiny_set, with_maps, monkeypatch):
    monkeypatch.setattr("retrieval.extras.find_spec", lambda name: None if name == "captum" else object())
    told = lmr.open_index("landmarks", device="cpu", threads=1, workers=1).explain(ARCH)
    assert [one.name for one in told.maps.maps] == ["similarity"]
    (note,) = told.notes
    assert note == "there are no saliency maps: saliency needs captum; pip install 'lmr[explain]'"


def test_a_network_that_cannot_be_looked_into_is_told(tiny_set, with_maps, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise LmrError("model has no weights")

    monkeypatch.setattr("retrieval.explain.maps.open_explainer", refuse)
    explain(ARCH)
    told = numbers("test-arch-0")
    assert told["maps"] is None
    assert told["notes"] == ["there are no maps: model has no weights"]
    assert "What makes them similar" not in Path("why/test-arch-0/explanation.html").read_text()


def test_without_torch_there_are_no_maps(tiny_set, with_maps, monkeypatch):
    landmarks = lmr.open_index("landmarks", device="cpu", threads=1, workers=1)
    monkeypatch.setattr("retrieval.explain.maps.missing", lambda *names: [*names])
    monkeypatch.setitem(sys.modules, "retrieval.explain.network", None)
    assert landmarks.explain(ARCH).notes == ["there are no maps: maps need torch, which is not installed; install it"]


def save_head(folder: str, seed: int) -> None:
    """Writes a classifier of the set's landmarks beside a model, its head at random."""
    torch.manual_seed(seed)
    _, card = load_model(Path(folder))
    assert card.d is not None
    save_classifier(Path(folder), LandmarkLoss(LossConfig(), card.d, np.full(len(LABELS), 8)), LABELS)


def test_the_most_probable_class_is_explained_by_the_classifier_that_is_given(tiny_set):
    save_head("model", 1)
    done("query", ARCH, "--explain", "why", "--classifier", "model", *HERE)
    told = numbers("test-arch-0")["class"]
    opened = open_classifier(Path("model"), device=torch.device("cpu"), n_workers=1)
    with torch.no_grad():
        vector = torch.from_numpy(lmr.open_index("landmarks", device="cpu", threads=1, workers=1).embed([ARCH])[0])
    probability = opened.classifier.probabilities(vector)[0]
    label = LABELS[int(probability.argmax())]
    name = {"arch": "The Great Arch", "dome": "Old Dome"}.get(label, label)
    assert (told["landmark_id"], told["name"]) == (label, name)
    assert told["probability"] == pytest.approx(float(probability.max()), abs=0.03)  # of a descriptor in bfloat16
    assert [one["name"] for one in told["maps"]] == [f"class-{name}" for name in MAPS[1:]]
    for one in told["maps"]:
        (side,) = one["sides"]
        assert side["sum"] >= 0
        assert (side["rest"], side["values"]) == (None, None)
        assert Path(f"why/test-arch-0/map-{one['name']}.png").is_file()
    assert max(one["sides"][0]["sum"] for one in told["maps"]) > 0
    page = Path("why/test-arch-0/explanation.html").read_text()
    shown = label if name == label else f"{name} ({label})"
    assert f"<h2>What speaks for the class {shown}</h2>" in page
    assert page.count(", class</b>") == len(MAPS[1:])
    explain(ARCH, to="plain")
    assert numbers("test-arch-0", "plain")["class"] is None
    assert "What speaks for the class" not in Path("plain/test-arch-0/explanation.html").read_text()


def test_an_explanation_by_another_classifier_is_another_one(tiny_set):
    save_head("model", 1)
    asked = ("query", ARCH, "--explain", "why", "--classifier", "model", *HERE)
    done(*asked)
    assert done(*asked).stderr.splitlines()[-1] == "why: finished already, nothing to do"
    save_head("model", 2)
    other = "why was made with another --classifier; give --overwrite or another name"
    assert refused(*asked) == other


def test_classifiers_that_cannot_explain_the_answers_are_refused_before_the_work(tiny_set, monkeypatch):
    def refusal(model: str) -> str:
        return refused("query", ARCH, "--explain", "why", "--classifier", model, *HERE)

    assert misused("query", ARCH, "--classifier", "model", *HERE) == "--classifier needs --explain"
    assert refusal("nowhere") == "nowhere: there is no model (no model.json); lmr train makes one"
    assert refusal("model") == (
        "model has no classifier.safetensors; lmr train writes one with every --loss that has classes, or use the "
        "neighbours: lmr evaluate"
    )
    net, card = load_model(Path("model"))
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    save_model(Path("other"), net, card.image_spec, made_by={})
    save_head("other", 1)
    assert refusal("other") == (
        "other has another network than landmarks, so that its classes explain no answer of it; give the model that "
        "the index was built with as --classifier"
    )
    save_head("model", 1)
    monkeypatch.setattr("retrieval.extras.find_spec", lambda name: None if name == "captum" else object())
    assert refusal("model") == f"saliency needs captum; {install_hint('explain')}"
    assert not Path("why").exists()


def test_the_classifier_of_one_network_of_an_ensemble_explains_it(tiny_set):
    net, card = load_model(Path("model"))
    save_model(Path("other"), net, card.image_spec, made_by={})
    done("ensemble", "model", "other", "--output", "both")
    save_head("other", 1)
    folder = SimpleNamespace(path=Path("index"), model_path=Path("both"))
    assert open_explained(folder, Path("other"), "cpu", 1).maps(Path(ARCH).read_bytes()).label in LABELS


def test_explanations_of_other_runs_are_no_queries(tiny_set):
    Path("trip").mkdir()
    shutil.copy(ARCH, "trip/p.jpg")
    explain("trip", to="trip/why")
    assert explain("trip", to="trip/why") == "trip/why: finished already, nothing to do"
    assert refused("query", "trip/why", "--explain", "trip/why", *HERE) == (
        "trip/why holds all of the pictures; explain them in another folder"
    )


def test_images_are_explained_before_they_are_moved(tiny_set):
    Path("trip").mkdir()
    shutil.copy(ARCH, "trip/p.jpg")
    moved = ("query", "trip", "--explain", "why", "--sort-into", "sorted", "--mode", "move", *HERE)
    done(*moved)
    assert numbers("p")["notes"] == []
    assert done(*moved).stdout == "sorted: 1 picture moved already, nothing to do\n"
    shutil.rmtree("why")
    assert refused(*moved) == (
        "sorted: 1 picture moved already, why is not there; give sorted as the pictures, or --undo-moves first"
    )


def test_a_kill_leaves_no_folder_and_the_same_command_writes_it(tiny_set, monkeypatch):
    run_and_die(tiny_set, ["query", ARCH, "--explain", "why", *HERE], 9)
    monkeypatch.chdir(tiny_set)
    assert not Path("why").exists()
    assert explain(ARCH) == "why: 1 picture explained; open why/test-arch-0/explanation.html"
    assert [path.name for path in tiny_set.iterdir() if "why" in path.name] == ["why"]


def test_a_page_without_jinja2_is_refused_before_the_work(tiny_set, monkeypatch):
    monkeypatch.setattr("retrieval.extras.find_spec", lambda name: None if name == "jinja2" else object())
    assert refused("query", ARCH, "--explain", "why", *HERE).startswith("--explain why needs jinja2; pip install")
    assert not Path("why").exists()
