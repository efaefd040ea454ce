"""Predictions check themselves."""

import re

import numpy as np
import pytest

from index.recognition import Predictions


def predictions(logit=(0.5, -np.inf), confidence=(0.6, 0.0), landmark=("a", "")):
    image_id = np.array(["x", "y"], dtype=object)
    return Predictions(image_id, np.array(landmark, dtype=object), np.array(logit), np.array(confidence))


def test_a_blank_landmark_is_no_answer():
    assert predictions().answered.tolist() == [True, False]
    assert len(predictions()) == 2


def test_confidences_of_an_index_that_is_not_calibrated_are_nan():
    assert np.isnan(predictions(confidence=(np.nan, np.nan)).confidence).all()


def test_a_logit_that_is_nan_is_refused_by_its_row():
    with pytest.raises(ValueError, match=re.escape("logit[1] is NaN")):
        predictions(logit=(0.5, np.nan))


def test_a_confidence_above_one_is_refused():
    with pytest.raises(ValueError, match=re.escape("confidence must lie in [0, 1]")):
        predictions(confidence=(1.5, 0.0))


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=re.escape("landmark has shape (1,), image_id (2,)")):
        predictions(landmark=("a",))


def test_a_logit_in_float32_is_refused():
    with pytest.raises(ValueError, match="logit and confidence must be float64, not float32, float64"):
        Predictions(predictions().image_id, predictions().landmark, np.zeros(2, np.float32), np.zeros(2))


def test_predictions_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        predictions().logit[0] = 1.0
