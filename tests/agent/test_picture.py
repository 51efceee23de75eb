import numpy as np
import pytest

from hieros_repro.agent.picture import BORDER, DREAMT, GAP, INK, PAPER, SEEN, TEXT, TILE, WIDTH, Row, grid

TOP = 2 * (TEXT + 2 * GAP)  # of the first row of images


def image(height, width, channels=3, seed=0):
    """Without black or white, which are text and paper."""
    return np.random.default_rng(seed).integers(60, 200, (height, width, channels)).astype(np.uint8)


def frame_of(*images, name="", title="", heads=(), border=SEEN):
    return grid(title, heads, [Row(name, images, [border] * len(images))])


def inked(area):
    """How many pixels of an area are text."""
    return int((area.astype(int).min(-1) > 180).sum())


def test_a_tile_is_the_image_with_every_pixel_repeated_inside_its_border():
    small = image(16, 16)
    frame = frame_of(small)
    left = 2 * GAP + BORDER  # a row without a name has no more margin than its gaps
    tile = frame[TOP + BORDER : TOP + BORDER + 96, left : left + 96]
    assert np.array_equal(tile, small.repeat(6, 0).repeat(6, 1))
    whole = frame[TOP : TOP + 96 + 2 * BORDER, 2 * GAP : 2 * GAP + 96 + 2 * BORDER].copy()
    whole[BORDER:-BORDER, BORDER:-BORDER] = SEEN
    assert (whole == SEEN).all()


@pytest.mark.parametrize("side, times", [(16, 6), (64, 2), (96, 1), (200, 1)])
def test_the_shorter_side_of_an_image_is_shown_large_enough(side, times):
    frame = frame_of(image(side, side), border=DREAMT)
    assert (frame == DREAMT).all(-1).any(1).sum() == side * times + 2 * BORDER
    assert side * times >= TILE


def test_images_of_other_sizes_are_brought_to_one_height():
    frame = frame_of(image(100, 150), image(16, 16))
    rows = (frame == SEEN).all(-1)
    assert rows.any(1).sum() == 100 + 2 * BORDER
    assert rows.any(0).sum() == 150 + 100 + 4 * BORDER


def test_gray_images_are_shown_gray_and_of_stacked_ones_the_newest():
    gray, stack = image(96, 96, 1), image(96, 96, 6)
    left = 2 * GAP + BORDER
    cut = lambda frame: frame[TOP + BORDER : TOP + BORDER + 96, left : left + 96]  # noqa: E731
    assert np.array_equal(cut(frame_of(gray)), gray.repeat(3, -1))
    assert np.array_equal(cut(frame_of(stack)), stack[..., 3:])
    assert np.array_equal(cut(frame_of(stack[..., :4])), stack[..., 3:4].repeat(3, -1))


def test_title_heads_and_names_are_written_where_they_belong():
    plain = image(96, 96)
    bare, full = (frame_of(plain, plain, **words) for words in ({}, {"title": "step 3", "heads": ["a", "b"], "name": "row"}))
    assert inked(bare[:TOP]) == 0
    line = TOP // 2
    assert inked(full[:line, :100]) > 30  # the title
    starts = np.flatnonzero((full == SEEN).all(-1).any(0))
    second = starts[np.flatnonzero(np.diff(starts) > 1)[-1] + 1]
    assert (
        inked(full[line:TOP, starts[0] : starts[0] + 20]) > 5 and inked(full[line:TOP, second : second + 20]) > 5
    )  # the heads
    assert inked(full[TOP:, : starts[0]]) > 20 and starts[0] > 2 * GAP + 10  # the row's name, beside its images


def test_frames_are_of_one_even_size_whatever_is_written_above_them():
    frames = [frame_of(image(15, 15), title=title, heads=[title]) for title in ("", "9", "a long title" * 10)]
    assert {frame.shape for frame in frames} == {frames[0].shape}
    assert all(side % 2 == 0 for side in frames[0].shape[:2]) and frames[0].shape[1] == WIDTH
    assert frames[0].dtype == np.uint8 and (frames[0][-1, -1] == PAPER).all() and INK != PAPER
