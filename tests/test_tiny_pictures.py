"""The embedded model's data: scenes, drawings, captions, the checks that read pictures, spoiled ones."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_viz.tiny.captions import WORDS, caption, plain, unknown_words
from ldm_viz.tiny.checks import measure
from ldm_viz.tiny.drawing import draw, draw_backdrop
from ldm_viz.tiny.scenes import ATTRIBUTES, HELD_OUT, Scene, random_scene
from ldm_viz.tiny.spoiled import spoil

scenes = st.builds(Scene, *(st.sampled_from(values) for values in ATTRIBUTES.values()))
seeds = st.integers(0, 2**32 - 1)


def test_a_tenth_of_the_pairs_is_held_out_and_no_value_disappears():
    pairs = set(product(ATTRIBUTES["object"], ATTRIBUTES["colour"]))
    assert pairs >= HELD_OUT
    assert 0.08 < len(HELD_OUT) / len(pairs) < 0.12
    seen = pairs - HELD_OUT
    assert {o for o, _ in seen} == set(ATTRIBUTES["object"])
    assert {c for _, c in seen} == set(ATTRIBUTES["colour"])


def test_random_scenes_keep_held_out_pairs_apart():
    rng = np.random.default_rng(0)
    assert not any(random_scene(rng).held_out for _ in range(400))
    assert all(random_scene(rng, held_out=True).held_out for _ in range(60))
    drawn = Counter(random_scene(rng, held_out=True).object for _ in range(400))
    assert set(drawn) == {o for o, _ in HELD_OUT}


def test_a_scene_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"colour is 'mauve'.*one of red, orange"):
        Scene("boat", "mauve", "day", "grass", "small", "left")


@given(scenes)
def test_indices_round_trip(scene):
    assert Scene.from_indices(scene.indices()) == scene


@given(scenes, seeds)
@settings(max_examples=25, deadline=None)
def test_a_seed_fixes_the_picture(scene, seed):
    first = draw(scene, np.random.default_rng(seed))
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert (first == draw(scene, np.random.default_rng(seed))).all()
    backdrop = draw_backdrop(scene, np.random.default_rng(seed))
    changed = (first != backdrop).any(2)
    assert 30 < changed.sum() < 1800


@given(scenes, seeds)
@settings(max_examples=200, deadline=None)
def test_a_full_caption_says_everything_once_and_nothing_else(scene, seed):
    made = caption(scene, np.random.default_rng(seed), say=ATTRIBUTES)
    text = f" {made.text.lower().rstrip('.')} "
    assert made.said == set(ATTRIBUTES)
    for colour, ways in WORDS["colour"].items():
        said = any(f" {way} " in text.replace(",", " ") for way in ways)
        assert said == (colour == scene.colour), made.text


@given(scenes, seeds)
@settings(max_examples=100, deadline=None)
def test_a_caption_is_silent_about_what_it_leaves_out(scene, seed):
    made = caption(scene, np.random.default_rng(seed), say=["object"])
    words = made.text.lower().replace(",", " ").split()
    assert not set(words) & set(ATTRIBUTES["colour"] + ATTRIBUTES["time"] + ATTRIBUTES["size"])


def test_captions_vary_and_say_all_in_a_third():
    rng = np.random.default_rng(1)
    scene = Scene("boat", "blue", "night", "water", "small", "left")
    made = [caption(scene, rng) for _ in range(600)]
    assert len({c.text for c in made}) > 500
    assert 0.3 < np.mean([len(c.said) == 6 for c in made]) < 0.55
    assert all(c.said for c in made)


@given(scenes, seeds)
@settings(max_examples=60, deadline=None)
def test_the_model_knows_every_word_of_its_captions_and_no_other(scene, seed):
    assert unknown_words(caption(scene, np.random.default_rng(seed)).text) == []
    assert unknown_words("A purple DRAGON, two dragons; a castle!") == [
        "dragon",
        "two",
        "dragons",
        "castle",
    ]
    assert unknown_words("a boat's sail, that's red") == ["sail"]
    assert unknown_words("3 boats") == ["3", "boats"]
    assert unknown_words("") == []


def test_plain_captions_and_unknown_attributes():
    scene = Scene("house", "orange", "sunset", "snow", "large", "right")
    assert plain(scene) == "a large orange house on the right on snow at sunset"
    assert plain(scene, ["colour"]) == "an orange object"
    with pytest.raises(ValueError, match="one or more of object"):
        caption(scene, np.random.default_rng(0), say=["mood"])


def test_the_checks_read_drawings_right():
    wrong: Counter[str] = Counter()
    count = 150
    for i in range(count):
        rng = np.random.default_rng([41, i])
        scene = random_scene(rng, held_out=None)
        measured = measure(draw(scene, rng), scene.object)
        for attribute in ("time", "ground", "colour", "size", "position"):
            wrong[attribute] += getattr(measured, attribute) != getattr(scene, attribute)
        wrong["patches"] += measured.patches != 1
    assert wrong["time"] == wrong["ground"] == 0
    assert max(wrong.values()) <= 0.03 * count, wrong


def test_the_checks_see_an_empty_scene_and_two_objects():
    rng = np.random.default_rng(2)
    left = Scene("circle", "red", "day", "grass", "small", "left")
    right = Scene("square", "blue", "day", "grass", "small", "right")
    empty = draw_backdrop(left, np.random.default_rng(5))
    assert measure(empty, "circle").patches == 0
    assert measure(empty, "circle").colour == ""
    one, other = (draw(s, np.random.default_rng(5)) for s in (left, right))
    both = np.where((other != empty).any(2)[..., None], other, one)
    assert measure(both, "circle").patches == 2
    with pytest.raises(ValueError, match=r"expected \(64, 64, 3\)"):
        measure(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8), "circle")
    with pytest.raises(ValueError, match="known are circle"):
        measure(empty, "dragon")


def test_spoiled_drawings_are_pictures_of_every_kind():
    pictures = [spoil(np.random.default_rng([3, i])) for i in range(40)]
    assert {p.shape for p in pictures} == {(64, 64, 3)}
    assert (spoil(np.random.default_rng([3, 7])) == pictures[7]).all()
    patches = Counter(measure(p, "circle").patches for p in pictures)
    assert patches[0] and patches[2]
