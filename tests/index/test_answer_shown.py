"""What a notebook shows of an answer, whatever the names are."""

from index.answer import Answer, LandmarkScore, Neighbour

NASTY = "a\x1b[31m\u202e<b>\n"
SHOWN = r"a\x1b[31m\u202e<b>\x0a"
IN_HTML = r"a\x1b[31m\u202e&lt;b&gt;\x0a"


def answer() -> Answer:
    return Answer(
        image=NASTY,
        landmark_id=NASTY,
        name=NASTY,
        address="",
        confidence=0.9,
        threshold=0.5,
        landmarks=(LandmarkScore(NASTY, NASTY, 0.9, 0.8),),
        neighbours=(Neighbour(NASTY, NASTY, 0.8, "", NASTY),),
    )


def test_a_repr_moves_no_cursor_and_stays_one_line():
    assert repr(answer()) == f"<Answer '{SHOWN}': {SHOWN}, confidence 0.900>"
    assert repr(answer().best).isprintable()
    assert repr(answer().neighbours[0]).isprintable()


def test_a_page_for_notebooks_holds_names_as_text():
    page = answer()._repr_html_()
    assert page.count(IN_HTML) == 4
    assert page.replace("\n", "").isprintable()
    assert "<b>\x1b" not in page
