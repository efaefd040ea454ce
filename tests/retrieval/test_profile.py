"""Profiles: seconds to shares and rates, and what decides the rate."""

import pytest

from retrieval.embed.profile import profile_of

SECONDS = {"read": 1.0, "decode": 6.0, "resize": 1.0, "wait": 4.0, "transfer": 0.5, "forward": 5.0, "write": 0.5}


def test_shares_and_rates_are_those_of_the_threads_of_a_stage() -> None:
    profile = profile_of(SECONDS, n_images=100, wall_s=10, n_workers=2, is_ahead=False)
    assert profile.rate == 10
    decode, wait, forward = (
        next(s for s in profile.stages if s.name == name) for name in ("decode", "wait", "forward")
    )
    assert (decode.n_threads, decode.share, decode.rate) == (2, 0.3, pytest.approx(200 / 6))
    assert (forward.n_threads, forward.share, forward.rate) == (1, 0.5, 20)
    assert (wait.share, wait.rate) == (0.4, None)


@pytest.mark.parametrize(
    ("changes", "is_ahead", "bound"),
    [
        ({}, False, "the network most; images and network take turns on the same cores"),
        ({}, True, "the network"),
        ({"forward": 2.0}, True, "decoding"),
        ({"forward": 2.0, "read": 9.0}, True, "reading"),
        ({"forward": 2.0, "resize": 9.0}, True, "resizing"),
        ({"write": 20.0}, True, "writing"),
    ],
)
def test_what_would_take_longest_alone_decides_the_rate(changes, is_ahead: bool, bound: str) -> None:
    seconds = {**SECONDS, **changes}
    assert profile_of(seconds, n_images=9, wall_s=10, n_workers=2, is_ahead=is_ahead).bound == bound


def test_nothing_done_is_no_division_by_zero() -> None:
    profile = profile_of({}, n_images=0, wall_s=0, n_workers=1, is_ahead=False)
    assert profile.rate == 0
    assert {stage.rate for stage in profile.stages} == {None}
