"""What is wrong with a picture as such: too small, too dark, too bright, flat, blurred, of another density."""

from index.cleaning.rule import CleaningRule
from retrieval.picture_facts import PictureFacts
from retrieval.resolution import pixels_per_inch


def picture_fault(facts: PictureFacts, rule: CleaningRule) -> str:
    """The first fault in words, '' for none."""
    ppi = round(float(pixels_per_inch(facts.width, facts.height, rule.diagonal_in)), 1)  # 224 x 224 is 18, not 17.999
    low, high = rule.ppi_low, rule.ppi_high
    if (low is not None and ppi < low) or (high is not None and ppi > high):
        return f"{ppi:.1f} pixels per inch, not {_span(low, high)}"
    if min(facts.width, facts.height) < rule.min_side_px:
        return f"{facts.width} x {facts.height} pixels, the shorter side under {rule.min_side_px}"
    if facts.brightness < rule.min_brightness:
        return f"too dark: brightness {facts.brightness:.1f} under {rule.min_brightness:g}"
    if facts.brightness > rule.max_brightness:
        return f"too bright: brightness {facts.brightness:.1f} over {rule.max_brightness:g}"
    if facts.contrast < rule.min_contrast:
        return f"flat: contrast {facts.contrast:.1f} under {rule.min_contrast:g}"
    if facts.sharpness < rule.min_sharpness:
        return f"blurred: sharpness {facts.sharpness:.1f} under {rule.min_sharpness:g}"
    return ""


def _span(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
