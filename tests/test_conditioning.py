"""Embeddings of texts and pictures: their spaces, the ways into pipelines, the arithmetic."""

import copy
import gc
import io
import re
import struct
import warnings
import weakref
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from conditioned import build, clip_vision, draw, photograph, shared
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel

import ldm_viz as lv
from ldm_viz.conditioning import takes
from ldm_viz.conditioning.pictures import MOST_PIXELS, as_picture
from ldm_viz.conditioning.tokens import Block, place, place_less

SD, SDXL, SD3 = "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline"
FLUX, PIXART, SANA = "FluxPipeline", "PixArtAlphaPipeline", "SanaPipeline"
PRIOR, DECODER = "KandinskyV22PriorPipeline", "KandinskyV22Pipeline"
UNCLIP = "StableUnCLIPImg2ImgPipeline"
PROMPTED = (SD, SDXL, SD3, FLUX, PIXART, SANA)

STAR, FISH, RED, BLUE = "a red star", "a blue fish at night", "red", "blue"

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def guidance(name, on):
    """Arguments for a call with guidance, or without."""
    if name == FLUX:
        return {"true_cfg_scale": 4.0 if on else 1.0}
    return {"guidance_scale": 4.0 if on else 1.0}


def equal(a, b):
    """Whether two embeddings have the same parts, to the bit."""
    return a.parts.keys() == b.parts.keys() and all(
        torch.equal(a.parts[name], b.parts[name]) for name in a.parts
    )


def close(a, b, tolerance=1e-5):
    """Whether they are the same but for rounding."""
    return a.parts.keys() == b.parts.keys() and all(
        torch.allclose(a.parts[n].double(), b.parts[n].double(), rtol=tolerance, atol=tolerance)
        for n in a.parts
    )


# Prompt spaces

REDUCED = {
    "itself": lambda a, b: a,
    "a + b - b": lambda a, b: a + b - b,
    "b + a - b": lambda a, b: b + a - b,
    "0.5 * (2 * a)": lambda a, b: 0.5 * (2 * a),
    "a / 3 * 3": lambda a, b: a / 3 * 3,
    "0.1 a + 0.2 a + 0.7 a": lambda a, b: 0.1 * a + 0.2 * a + 0.7 * a,
    "0 - (-a)": lambda a, b: 0 * b - (-a),
    "lerp 0": lambda a, b: lv.lerp(a, b, 0),
    "lerp 1": lambda a, b: lv.lerp(b, a, 1),
    "lerp of equals": lambda a, b: lv.lerp(a, a, 0.3),
    "slerp 0": lambda a, b: lv.slerp(a, b, 0.0),
    "slerp 1": lambda a, b: lv.slerp(b, a, 1.0),
    "slerp of equals": lambda a, b: lv.slerp(a, a, 0.3),
    "mix of equals": lambda a, b: lv.mix([a, a, a], [1, 2, 0.5]),
    "mix without b": lambda a, b: lv.mix([a, b], [1, 0]),
    "keep_norm of equals": lambda a, b: lv.keep_norm(a, a),
    "direction": lambda a, b: b + lv.direction([b], [a]),
}


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("name", PROMPTED)
def test_what_reduces_to_one_prompt_draws_its_picture_to_the_bit(name, guided):
    pipe, call = shared(name), guidance(name, guided)
    own = draw(pipe, prompt=STAR, **call)
    assert np.isfinite(own).all() and own.std() > 0.01, "a flat picture would prove nothing"
    a, b = lv.text(pipe, STAR), lv.text(pipe, FISH)
    for how, reduce in REDUCED.items():
        embedding = reduce(a, b)
        assert equal(embedding, a), how
        mine = draw(pipe, **lv.condition(pipe, embedding), **call)
        assert np.array_equal(mine, own), how
    assert not np.array_equal(draw(pipe, **lv.condition(pipe, b), **call), own)


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("name", PROMPTED)
def test_a_negative_text_is_the_pipelines_negative_prompt(name, guided):
    pipe, call = shared(name), guidance(name, guided)
    own = draw(pipe, prompt=STAR, negative_prompt=FISH, **call)
    star = lv.text(pipe, STAR)
    assert np.array_equal(draw(pipe, **lv.condition(pipe, star, negative=FISH), **call), own)
    if name != SANA:  # which puts its instructions before a prompt, and not before a negative one
        given = lv.condition(pipe, star, negative=lv.text(pipe, FISH))
        assert np.array_equal(draw(pipe, **given, **call), own)
    without = draw(pipe, prompt=STAR, **call)
    assert np.array_equal(own, without) != guided


@pytest.mark.parametrize("name", PROMPTED)
def test_arithmetic_moves_all_parts_of_a_prompt_together(name):
    pipe = shared(name)
    a, b = lv.text(pipe, STAR), lv.text(pipe, FISH)
    mixed = 0.7 * a + 0.6 * b
    assert set(mixed.parts) == set(a.parts)
    for part, value in mixed.parts.items():
        x, y = a.parts[part], b.parts[part]
        if value.is_floating_point():
            assert torch.equal(value, (0.7 * x.double() + 0.6 * y.double()).float())
        else:
            assert torch.equal(value, x | y) and not torch.equal(x, y)
    given = lv.condition(pipe, mixed, negative="")
    assert set(given) >= {*a.parts, *(f"negative_{part}" for part in a.parts)}
    pictures = [draw(pipe, **given), draw(pipe, **given), draw(pipe, prompt=STAR)]
    assert np.array_equal(pictures[0], pictures[1]) and np.isfinite(pictures[0]).all()
    assert not np.array_equal(pictures[0], pictures[2])


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (SD, {"prompt_embeds": (32, 16)}),
        (SDXL, {"prompt_embeds": (32, 32), "pooled_prompt_embeds": (16,)}),
        (SD3, {"prompt_embeds": (32 + 256, 32), "pooled_prompt_embeds": (32,)}),
        (FLUX, {"prompt_embeds": (512, 32), "pooled_prompt_embeds": (16,)}),
        (PIXART, {"prompt_embeds": (120, 32), "prompt_attention_mask": (120,)}),
        (SANA, {"prompt_embeds": (300, 8), "prompt_attention_mask": (300,)}),
    ],
)
def test_a_prompt_space_says_its_shapes_and_encoders(name, shapes):
    pipe = shared(name)
    space = lv.text(pipe, STAR).space
    assert space.kind == "prompt" and dict(space.shapes) == shapes
    assert type(pipe.text_encoder).__name__ in str(space) and space.key in str(space)
    assert takes(pipe) == ["prompt"]


def test_several_pictures_of_one_condition():
    pipe = shared(SDXL)
    own = draw(pipe, prompt=STAR, num_images_per_prompt=2)
    mine = draw(pipe, **lv.condition(pipe, lv.text(pipe, STAR)), num_images_per_prompt=2)
    assert own.shape[0] == 2 and np.array_equal(mine, own)


def test_a_guidance_scale_is_handed_on():
    pipe = shared(SD)
    given = lv.condition(pipe, lv.text(pipe, STAR), guidance_scale=2.5)
    assert given["guidance_scale"] == 2.5
    assert np.array_equal(draw(pipe, **given), draw(pipe, prompt=STAR, guidance_scale=2.5))


def test_a_pipeline_without_encoders_draws_what_another_has_encoded():
    whole = shared(FLUX)
    missing = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    bare = build(FLUX, **dict.fromkeys(missing))
    mine = draw(bare, **lv.condition(bare, lv.text(whole, STAR)))
    assert np.array_equal(mine, draw(whole, prompt=STAR))
    with pytest.raises(lv.SpaceError, match="needs a text encoder"):
        lv.text(bare, STAR)


def test_prompts_as_long_as_their_texts():
    pipe = shared("CogView4Pipeline")  # in steps of sixteen tokens
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is cut
        star, red, long = (lv.text(pipe, text) for text in (STAR, RED, "a red star and " * 5))
    assert all(token.kept for token in lv.tokens(pipe, "a red star and " * 6))
    assert np.array_equal(
        draw(pipe, **lv.condition(pipe, long)), draw(pipe, prompt="a red star and " * 5)
    )
    assert_laid(star - 0.5 * red, states(pipe, STAR) - 0.5 * states(pipe, RED))
    with pytest.raises(lv.SpaceError, match=r"sequences of 16 and 32 vectors.*of as many tokens"):
        lv.condition(pipe, star + long)
    with pytest.raises(lv.SpaceError, match="sequences of 32 and 16 vectors"):
        lv.slerp(long, star, 0.5)


def test_prompts_whose_other_parts_are_not_known_are_refused():
    pipe = shared("HunyuanDiTPipeline")  # takes prompt_embeds_2, too
    assert takes(pipe) == []
    with pytest.raises(lv.SpaceError, match="encodes prompts in a way that is not known here"):
        lv.text(pipe, STAR)
    with pytest.raises(lv.SpaceError, match=r"cannot take.*It takes no embeddings"):
        lv.condition(pipe, lv.text(shared(SD), STAR))


def test_sd3_without_t5():
    pipe = build(SD3, text_encoder_3=None, tokenizer_3=None)
    star, red = lv.text(pipe, STAR), lv.text(pipe, RED)
    assert np.array_equal(draw(pipe, **lv.condition(pipe, star)), draw(pipe, prompt=STAR))
    assert [token.text for token in lv.tokens(pipe, "a b")][1:3] == ["a", "b"]
    edited = star - red + lv.text(pipe, BLUE)
    assert not edited.parts["prompt_embeds"][:, 32:].any(), "what stands for T5 stays zero"
    # "star", six letters from the fifth on, keeps what it is but for red's and blue's ends.
    moved = red.parts["prompt_embeds"][0, 4] - lv.text(pipe, BLUE).parts["prompt_embeds"][0, 5]
    expected = star.parts["prompt_embeds"][0, 5] - moved
    assert torch.allclose(edited.parts["prompt_embeds"][0, 5], expected, atol=1e-5)


# Joint routes


@pytest.fixture(scope="module")
def adapted():
    """The embedded model with its image adapter."""
    return lv.load_tiny(adapter=True)


def seeing(kind):
    return lv.load_tiny(adapter=True) if kind == "tiny" else shared(kind, adapters=("plain",))


@pytest.mark.parametrize("count", [1, 2], ids=["one", "two"])
@pytest.mark.parametrize("scale", [4.0, 1.0, None], ids=["guided", "unguided", "default"])
@pytest.mark.parametrize("kind", ["tiny", SD, SDXL])
def test_a_picture_alone_is_the_image_prompt(kind, scale, count):
    pipe, picture = seeing(kind), photograph()
    given = lv.condition(pipe, lv.image(pipe, picture), prompt="a star", guidance_scale=scale)
    call = {"height": 32, "width": 32, "num_images_per_prompt": count}
    own = {} if scale is None else {"guidance_scale": scale}
    expected = draw(pipe, prompt="a star", ip_adapter_image=picture, **own, **call)
    assert expected.shape[0] == count and expected.std() > 0.01
    assert np.array_equal(draw(pipe, **given, **call), expected)
    other = lv.condition(pipe, lv.image(pipe, photograph(1)), guidance_scale=scale)
    assert not np.array_equal(draw(pipe, **other, **call), expected)


def test_a_negative_picture_takes_the_place_of_zeros():
    pipe = seeing(SD)
    a, b = (lv.image(pipe, photograph(seed)) for seed in (0, 1))
    given = lv.condition(pipe, a, negative=b)["ip_adapter_image_embeds"]
    assert len(given) == 1
    assert torch.equal(given[0], torch.stack([b.main, a.main]))
    zeros = lv.condition(pipe, a)["ip_adapter_image_embeds"][0]
    assert torch.equal(zeros, torch.stack([torch.zeros_like(a.main), a.main]))
    (alone,) = lv.condition(pipe, a, guidance_scale=1.0)["ip_adapter_image_embeds"]
    assert torch.equal(alone, a.main[None])
    assert draw(pipe, **lv.condition(pipe, a, negative=a - a)).std() > 0.01  # zeros are allowed


@pytest.mark.parametrize("adapters", [("plain",), ("plus",), ("plain", "plus")], ids="+".join)
@pytest.mark.parametrize("scale", [4.0, 1.0], ids=["guided", "unguided"])
def test_a_prompt_alone_leaves_image_adapters_without_a_picture(adapters, scale):
    pipe = shared(SD, adapters=adapters)
    given = lv.condition(pipe, lv.text(pipe, STAR), guidance_scale=scale)
    nothing = []
    for kind in adapters:
        none = pipe.encode_image(photograph(), "cpu", 1, output_hidden_states=kind == "plus")[1]
        nothing.append(none.unsqueeze(0).repeat(2 if scale > 1 else 1, *[1] * none.ndim))
    own = draw(pipe, prompt=STAR, ip_adapter_image_embeds=nothing, guidance_scale=scale)
    assert np.array_equal(draw(pipe, **given), own)


def test_plus_adapters_take_no_joint_vectors():
    pipe = shared(SD, adapters=("plus",))
    picture = lv.image(pipe, photograph())
    with pytest.raises(lv.SpaceError, match=r"reads hidden states .* not of the Plus kind"):
        lv.condition(pipe, picture)


def test_a_joint_vector_is_for_one_adapter():
    pipe = shared(SD, adapters=("plain", "plain"))
    with pytest.raises(lv.SpaceError, match=r"has 2 image adapters.*load one alone"):
        lv.condition(pipe, lv.image(pipe, photograph()))


def test_a_pipeline_without_an_adapter_says_what_would_work():
    pipe = shared(SD)
    with pytest.raises(lv.SpaceError, match=r"no image encoder.*load_ip_adapter.*load_tiny"):
        lv.image(pipe, photograph())
    joint = lv.image(seeing(SD), photograph())
    with pytest.raises(lv.SpaceError) as raised:
        lv.condition(pipe, joint)
    message = str(raised.value)
    assert "cannot take image(" in message and "the joint text-image space of" in message
    assert "It takes prompts (lv.text(pipe, …))" in message and "load_ip_adapter" in message


def test_an_image_encoder_without_a_projection_is_no_joint_space():
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    pipe = build(SD, image_encoder=CLIPVisionModel(config))
    with pytest.raises(lv.SpaceError, match=r"CLIPVisionModel\) has no projection"):
        lv.image(pipe, photograph())


def test_texts_need_the_text_tower_of_the_same_clip():
    pipe = seeing(SD)
    with pytest.raises(lv.SpaceError, match=r"not the text tower.*joint=lv.JointSpace"):
        lv.text(pipe, STAR, space="joint")
    with pytest.raises(lv.SpaceError, match=r"not the text tower"):
        lv.image(pipe, photograph()) - lv.text(pipe, STAR)
    with pytest.raises(lv.SpaceError, match=r"not the text tower"):
        lv.condition(pipe, lv.image(pipe, photograph()), negative="rain")


def test_a_text_tower_that_is_given_makes_room_for_texts():
    pipe, prior = seeing(SD), shared(PRIOR)
    joint = lv.JointSpace(
        prior.text_encoder, pipe.image_encoder, prior.tokenizer, pipe.feature_extractor
    )
    picture = photograph()
    whole = lv.embed(pipe, 'image("it") - "day" + "night"', {"it": picture}, joint=joint)
    day, night = (lv.text(pipe, word, joint=joint) for word in ("day", "night"))
    # A picture that was embedded without the text tower is of the same space.
    pieces = lv.image(pipe, picture) - day + night
    assert equal(whole, pieces)
    unsaid = lv.image(pipe, picture, joint=joint) - lv.text(pipe, "day") + night
    assert equal(whole, unsaid)
    assert lv.condition(pipe, pieces, negative="rain")["ip_adapter_image_embeds"][0].any()
    with pytest.raises(lv.SpaceError, match="two towers do not belong together"):
        wrong = lv.JointSpace(prior.text_encoder, clip_vision(8), prior.tokenizer, None)
        lv.text(pipe, STAR, joint=wrong)


# Two without guidance are more than the decoder itself can draw.
@pytest.mark.parametrize(("scale", "count"), [(4.0, 1), (4.0, 2), (1.0, 1)])
def test_kandinskys_prior_encodes_for_its_decoder(scale, count):
    prior, decoder, picture = shared(PRIOR), shared(DECODER), photograph()
    own = prior.interpolate([picture], [1.0], num_inference_steps=2)
    call = {"guidance_scale": scale, "num_images_per_prompt": count}
    vector = lv.image(prior, picture)
    assert vector.space.kind == "joint" and takes(prior) == [] and takes(decoder) == ["joint"]
    expected = draw(decoder, **own, **call)
    assert np.array_equal(draw(decoder, **lv.condition(decoder, vector), **call), expected)
    given = lv.condition(decoder, vector, guidance_scale=scale)
    assert np.array_equal(draw(decoder, **given, num_images_per_prompt=count), expected)
    night = vector - lv.text(prior, "day") + lv.text(prior, "night")
    changed = draw(decoder, **lv.condition(decoder, night), **call)
    assert np.isfinite(changed).all() and not np.array_equal(changed, expected)


def test_kandinskys_negative_is_what_guidance_leads_away_from():
    prior, decoder = shared(PRIOR), shared(DECODER)
    vector = lv.image(prior, photograph())
    given = lv.condition(decoder, vector, negative="rain")
    assert torch.equal(given["negative_image_embeds"], lv.text(prior, "rain").main)
    with pytest.raises(lv.SpaceError, match=r"cannot take image\("):
        lv.condition(prior, vector)


def test_a_decoder_refuses_vectors_of_another_width():
    prior = build(PRIOR, image_encoder=clip_vision(8))
    vector = lv.image(prior, photograph())
    with pytest.raises(lv.SpaceError, match="takes vectors of 16 numbers, but the embedding has 8"):
        lv.condition(shared(DECODER), vector)


def test_an_adapter_refuses_vectors_of_another_width():
    pipe = build(SD, adapters=("plain",), image_encoder=clip_vision(8))
    with pytest.raises(lv.SpaceError, match="takes vectors of 16 numbers, but the embedding has 8"):
        lv.condition(pipe, lv.image(pipe, photograph()))


@pytest.mark.parametrize("count", [1, 2], ids=["one", "two"])
@pytest.mark.parametrize("scale", [4.0, 1.0], ids=["guided", "unguided"])
def test_stable_unclip_takes_vectors_of_its_image_encoder(scale, count):
    pipe, picture = shared(UNCLIP), photograph()
    call = {"guidance_scale": scale, "num_images_per_prompt": count}
    own = draw(pipe, image=picture, prompt="a star", **call)
    given = lv.condition(pipe, lv.image(pipe, picture), prompt="a star")
    assert own.shape[0] == count and np.array_equal(draw(pipe, **given, **call), own)
    assert takes(pipe) == ["prompt", "joint"]
    with pytest.raises(ValueError, match="takes no negative joint vector"):
        lv.condition(pipe, lv.image(pipe, picture), negative=lv.image(pipe, photograph(1)))
    beside = draw(pipe, image=picture, prompt=STAR, **call)
    prompt = lv.condition(pipe, lv.text(pipe, STAR))
    assert np.array_equal(draw(pipe, image=picture, **prompt, **call), beside)


def test_the_embedded_models_pictures_and_texts_are_of_one_space(adapted):
    picture = photograph()
    night = lv.image(adapted, picture) - lv.text(adapted, "day") + lv.text(adapted, "night")
    written = lv.embed(adapted, 'image("it") - "day" + "night"', {"it": picture})
    assert equal(night, written) and night.space.kind == "joint"
    joint = adapted.joint_space()
    expected = joint.embed_images([picture]) - joint.embed_texts(["day"])
    assert torch.allclose(night.main, expected + joint.embed_texts(["night"]), atol=1e-6)
    assert draw(adapted, **lv.condition(adapted, night, guidance_scale=2.5)).std() > 0.01


# Spaces that do not fit


def test_a_chosen_prompt_does_not_meet_a_picture(adapted):
    picture = lv.image(adapted, photograph(), name="cat")
    prompt = lv.text(adapted, "day", space="prompt")
    with pytest.raises(lv.SpaceError) as raised:
        picture - prompt
    message = str(raised.value)
    assert 'image("cat") is in the joint text-image space of CLIPVision' in message
    assert '"day" is in the prompt space of CLIPTextModel' in message
    assert "One is a sequence of hidden states" in message and "space='joint'" in message
    with pytest.raises(lv.SpaceError, match="negative needs operands of one space"):
        lv.condition(adapted, picture, negative=prompt)
    for function in (lv.lerp, lv.slerp):
        with pytest.raises(lv.SpaceError, match=rf"{function.__name__} needs operands"):
            function(prompt, picture, 0.5)
    for function in (lv.keep_norm, lv.project_out):
        with pytest.raises(lv.SpaceError, match=rf"{function.__name__} needs operands"):
            function(picture, prompt)
    with pytest.raises(lv.SpaceError, match="mix needs operands"):
        lv.mix([picture, prompt])
    with pytest.raises(lv.SpaceError, match="a picture has no embedding in the prompt space"):
        lv.embed(adapted, 'image("it") - "day"', {"it": photograph()}, space="prompt")
    with pytest.raises(lv.SpaceError, match="cosine needs operands"):
        picture.cosine(prompt)


def test_a_text_that_nobody_chose_a_space_for_follows_a_picture(adapted):
    picture, text = lv.image(adapted, photograph()), lv.text(adapted, "day")
    joint = lv.text(adapted, "day", space="joint")
    assert text.space.kind == "prompt" and not text.chosen and joint.chosen
    assert equal(picture - text, picture - joint) and equal(text + picture, joint + picture)
    sum_of_texts = 2 * text - lv.normalize(lv.text(adapted, "night"))
    moved = picture + sum_of_texts
    assert equal(
        moved, picture + 2 * joint - lv.normalize(lv.text(adapted, "night", space="joint"))
    )
    assert equal(lv.lerp(text, picture, 0.25), 0.75 * joint + 0.25 * picture)
    assert equal(lv.keep_norm(picture - text, picture), lv.keep_norm(picture - joint, picture))
    assert picture.cosine(text) == pytest.approx(picture.cosine(joint), abs=0)
    # The condition itself follows, too, where only the negative one is a picture.
    given = lv.condition(adapted, text, negative=picture)
    assert torch.equal(given["ip_adapter_image_embeds"][0][1, 0], joint.main[0])
    alone = lv.condition(adapted, text)
    assert torch.equal(alone["prompt_embeds"], text.main)
    assert not alone["ip_adapter_image_embeds"][0].any()


@pytest.mark.parametrize("name", PROMPTED)
def test_texts_of_other_weights_are_of_another_space(name):
    pipe, other = shared(name), build(name, seed=1)
    mine, others = lv.text(pipe, STAR), lv.text(other, FISH)
    assert mine.space.shapes == others.space.shapes and mine.space.key != others.space.key
    with pytest.raises(lv.SpaceError) as raised:
        mine + others
    message = str(raised.value)
    assert f'"{STAR}" is in {mine.space}' in message
    assert f'"{FISH}" is in {others.space}' in message
    assert "their encoders' weights differ" in message and "with the same pipeline" in message
    with pytest.raises(lv.SpaceError, match=r"weights differ.*Embed it with this pipeline"):
        lv.condition(pipe, others)
    with pytest.raises(lv.SpaceError, match="negative needs operands"):
        lv.condition(pipe, mine, negative=others)


def test_texts_of_other_shapes_are_of_another_space():
    with pytest.raises(lv.SpaceError) as raised:
        lv.text(shared(SD), STAR) - lv.text(shared(SDXL), RED)
    assert "prompt_embeds is 32×16 in the first and 32×32 in the second" in str(raised.value)
    for name in PROMPTED:
        other = PROMPTED[PROMPTED.index(name) - 1]
        with pytest.raises(lv.SpaceError, match="Their shapes differ"):
            lv.condition(shared(name), lv.text(shared(other), STAR))


def test_pictures_of_other_weights_are_of_another_space():
    pipe, other = seeing(SD), build(SD, seed=1, adapters=("plain",))
    with pytest.raises(lv.SpaceError, match=r"encoders' weights differ.*with the same pipeline"):
        lv.image(pipe, photograph()) + lv.image(other, photograph())
    with pytest.raises(lv.SpaceError, match=r"has other weights.*Embed it with this pipeline"):
        lv.condition(pipe, lv.image(other, photograph()))
    # An encoder that only looks similar: the weights differ by a thousandth.
    near = copy.deepcopy(pipe)
    with torch.no_grad():
        for weight in near.image_encoder.parameters():
            weight.add_(1e-3)
    with pytest.raises(lv.SpaceError, match="has other weights"):
        lv.condition(pipe, lv.image(near, photograph()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", [SD, SDXL, SD3, FLUX, PIXART])
def test_the_same_weights_in_another_precision_are_the_same_space(name, dtype):
    pipe = shared(name)
    half = copy.deepcopy(pipe).to(dtype=dtype)
    mine, halved = lv.text(pipe, STAR), lv.text(half, FISH)
    assert halved.main.dtype == dtype and mine.space.same(halved.space)
    for drawing in (pipe, half):
        given = lv.condition(drawing, mine - halved)
        model = getattr(drawing, "unet", None) or drawing.transformer
        assert given["prompt_embeds"].dtype == model.dtype
    assert np.array_equal(draw(half, **lv.condition(half, halved)), draw(half, prompt=FISH))
    assert np.isfinite(draw(half, **lv.condition(half, mine))).all()


def test_a_copied_pipeline_is_of_the_same_space(adapted):
    pipe, twin = shared(SDXL), copy.deepcopy(shared(SDXL))
    star = lv.text(pipe, STAR)
    assert equal(star, lv.text(twin, STAR)) and (star - lv.text(twin, STAR)).terms == ()
    assert np.array_equal(draw(twin, **lv.condition(twin, star)), draw(pipe, prompt=STAR))
    other = lv.load_tiny(adapter=True, dtype=torch.float16)
    vector = lv.image(adapted, photograph())
    assert lv.condition(other, vector)["ip_adapter_image_embeds"][0].dtype == torch.float16


def query_weight(pipe):
    weights = dict(pipe.text_encoder.named_parameters())
    return next(weights[name] for name in weights if name.endswith("1.self_attn.q_proj.weight"))


def test_changed_encoders_leave_no_stale_texts():
    pipe = build(SD)
    before = lv.text(pipe, STAR)
    assert lv.text(pipe, STAR).encoder is before.encoder
    with torch.no_grad():
        query_weight(pipe).mul_(1.5)  # one weight of all, as merged adapters may
    after = lv.text(pipe, STAR)
    assert not equal(before, after)
    assert np.array_equal(draw(pipe, **lv.condition(pipe, after)), draw(pipe, prompt=STAR))
    with pytest.raises(lv.SpaceError, match="weights differ"):
        lv.condition(pipe, before)
    pipe.to(dtype=torch.bfloat16)
    assert lv.text(pipe, STAR).main.dtype == torch.bfloat16
    pipe.to(dtype=torch.float32)  # the numbers stay those of bfloat16
    assert lv.text(pipe, STAR).main.dtype == torch.float32


def test_low_rank_adapters_leave_no_stale_texts():
    pipe = build(SD)
    seen = [lv.text(pipe, STAR)]
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.text_encoder.add_adapter(config, "style")
    layers = [layer for layer in pipe.text_encoder.modules() if hasattr(layer, "lora_A")]
    assert layers

    def look():
        seen.append(lv.text(pipe, STAR))
        mine = draw(pipe, **lv.condition(pipe, seen[-1]))
        assert np.array_equal(mine, draw(pipe, prompt=STAR))
        return seen[-1]

    look()
    for layer in layers:
        layer.set_scale("style", 5.0)
    look()
    pipe.text_encoder.disable_adapters()
    assert equal(look(), seen[0])
    assert not any(equal(a, b) for a, b in [(seen[0], seen[1]), (seen[1], seen[2])])


def test_offloaded_encoders_are_told_apart():
    pipes = [build(SD, seed=seed) for seed in (0, 1, 0)]
    for pipe in pipes[1:]:
        for part in (pipe.vae, pipe.unet, pipe.text_encoder):
            cpu_offload(part, torch.device("cpu"))
        assert all(weight.is_meta for weight in pipe.text_encoder.parameters())
    first, other, same = (lv.text(pipe, STAR) for pipe in pipes)
    assert equal(first, same) and first.space.same(same.space)
    with pytest.raises(lv.SpaceError, match="weights differ"):
        first + other


# Words within texts


@pytest.fixture(scope="module")
def tiny():
    """The embedded model."""
    return lv.load_tiny()


def states(pipe, text):
    return lv.text(pipe, text).parts["prompt_embeds"][0].double()


def laid(pipe, host, *terms):
    """A text and others added to it with weights, each position from where the lists say."""
    total = states(pipe, host)
    for weight, text, places in terms:
        total = total + weight * states(pipe, text)[places]
    return total


def assert_laid(embedding, expected):
    actual = embedding.parts["prompt_embeds"][0]
    assert torch.allclose(actual.double(), expected, atol=2e-6 * float(expected.abs().max()))


def rest(first, stop=32):
    """Positions from one on, and the last again for what is beyond."""
    return list(range(first, stop))


def test_each_word_of_the_embedded_model_is_one_token(tiny):
    for word in ("a", "red", "star", "blue", "night"):
        assert [t.special for t in lv.tokens(tiny, word)] == [True, False, True]


def test_a_word_is_replaced_where_it_stands(tiny):
    # Positions: mark, a, red, star, end, …: the beginning before the word, its end behind it.
    places = [0, 0, 1, 2, 2, *rest(3, 30)]
    edited = lv.text(tiny, STAR) - lv.text(tiny, RED) + lv.text(tiny, BLUE)
    assert_laid(edited, laid(tiny, STAR, (-1, RED, places), (1, BLUE, places)))
    naive = states(tiny, STAR) - states(tiny, RED) + states(tiny, BLUE)
    assert not torch.allclose(edited.parts["prompt_embeds"][0].double(), naive, atol=1e-3)


def test_a_word_at_the_beginning_and_at_the_end(tiny):
    edited = lv.text(tiny, "red star at night") - lv.text(tiny, RED) + lv.text(tiny, BLUE)
    places = [0, 1, 2, 2, 2, 2, *rest(3, 29)]
    assert_laid(edited, laid(tiny, "red star at night", (-1, RED, places), (1, BLUE, places)))
    edited = lv.text(tiny, "red star at night") - lv.text(tiny, "night") + lv.text(tiny, "day")
    places = [0, 0, 0, 0, 1, 2, *rest(3, 29)]
    assert_laid(edited, laid(tiny, "red star at night", (-1, "night", places), (1, "day", places)))


def test_weights_are_linear_while_their_signs_stay(tiny):
    star, red, blue = (lv.text(tiny, text) for text in (STAR, RED, BLUE))
    places = [0, 0, 1, 2, 2, *rest(3, 30)]
    for taken, added in [(0.25, 1), (1.5, 0.5), (3, 2)]:
        terms = (-taken, RED, places), (added, BLUE, places)
        assert_laid(star - taken * red + added * blue, laid(tiny, STAR, *terms))
    assert_laid(2 * (star - red), 2 * laid(tiny, STAR, (-1, RED, places)))
    # A word that is added, and taken from nowhere, is added position by position.
    assert_laid(star + red, states(tiny, STAR) + states(tiny, RED))


def test_words_that_are_not_in_the_text_are_added_position_by_position(tiny):
    edited = lv.text(tiny, STAR) - lv.text(tiny, "fish") + lv.text(tiny, BLUE)
    assert_laid(edited, states(tiny, STAR) - states(tiny, "fish") + states(tiny, BLUE))
    # The text itself, and one as long as it, are no part of it.
    edited = lv.text(tiny, STAR) - lv.text(tiny, "a blue star") + lv.text(tiny, RED)
    assert_laid(edited, states(tiny, STAR) - states(tiny, "a blue star") + states(tiny, RED))


@pytest.mark.parametrize(
    ("host", "at", "taken"),
    [
        ("a crimson star", 2, "red"),
        ("a star that is scarlet", 5, "red"),
        ("a tiny golden disc at night", 3, "yellow"),
        ("a tiny golden disc at night", 4, "circle"),
    ],
)
def test_a_word_is_taken_from_one_that_means_the_same(tiny, host, at, taken):
    end = len(host.split()) + 1
    places = [0] * at + [1] + [2] * (end - at) + rest(3, 32 - end + 2)
    edited = lv.text(tiny, host) - lv.text(tiny, taken) + lv.text(tiny, BLUE)
    assert_laid(edited, laid(tiny, host, (-1, taken, places), (1, BLUE, places)))
    word = host.split()[at - 1]
    assert edited.notes == [
        f'"{taken}" is not in "{host}": it is taken from \'{word}\', the word most like it'
    ]


def test_a_word_itself_comes_before_one_like_it(tiny):
    edited = lv.text(tiny, "a crimson or scarlet moon") + lv.text(tiny, STAR) - lv.text(tiny, RED)
    places = [0, 0, 1, 2, 2, *rest(3, 30)]
    longer = states(tiny, "a crimson or scarlet moon")
    assert_laid(edited, longer + laid(tiny, STAR, (-1, RED, places)))
    assert edited.notes == []


def test_what_is_like_nothing_is_said_to_be_taken_everywhere(tiny):
    edited = lv.text(tiny, STAR) - lv.text(tiny, "night") + lv.text(tiny, "day")
    (note,) = edited.notes
    assert note.startswith('"night" is not in "a red star", nor a word that is clearly like it')
    assert (lv.text(tiny, STAR) - lv.text(tiny, RED)).notes == []


@pytest.mark.parametrize("name", PROMPTED)
def test_vocabularies_that_mean_nothing_have_no_words_alike(name):
    pipe = shared(name)
    edited = lv.text(pipe, STAR) - lv.text(pipe, "fish")
    assert_laid(edited, states(pipe, STAR) - states(pipe, "fish"))


# Words that count for more or less


def test_a_word_is_weighed_by_what_it_brings_to_every_position(tiny):
    # Positions: mark, a, red, star, end; without "red": mark, a, star, end.
    less = [0, 1, 1, 2, 3, *rest(4, 31)]
    star, without = states(tiny, STAR), states(tiny, "a star")[less]
    for weight in (0, 0.5, 1.5, -1, 4):
        weighed = lv.weigh(lv.text(tiny, STAR), {"Red": weight})
        assert_laid(weighed, star + (weight - 1) * (star - without))
    both = lv.weigh(lv.text(tiny, STAR), {"red": 0.5, "star": 2})
    no_star = states(tiny, "a red")[[0, 1, 2, 2, 3, *rest(4, 31)]]
    assert_laid(both, star - 0.5 * (star - without) + (star - no_star))
    chained = lv.weigh(lv.weigh(lv.text(tiny, STAR), {"star": 4, "red": 0.5}), {"Star": 0.5})
    assert equal(chained, both) or close(chained, both)


def test_repeated_words_and_the_only_word_are_weighed(tiny):
    twice = lv.weigh(lv.text(tiny, "red star red"), {"red": 0})
    places = [0, 0, 1, 1, 2, *rest(3, 30)]
    assert_laid(twice, states(tiny, "star")[places])
    only = lv.weigh(lv.text(tiny, RED), {"red": 0})
    assert_laid(only, states(tiny, "")[[0, 0, 1, *rest(2, 31)]])


@pytest.mark.parametrize("name", PROMPTED)
def test_weights_of_one_change_nothing_and_others_move_all_parts(name):
    pipe = shared(name)
    star = lv.text(pipe, STAR)
    assert equal(lv.weigh(star, {"red": 1}), star)
    assert equal(
        lv.embed(pipe, f'weigh("{STAR}", "red", 2, "star", 1)'), lv.weigh(star, {"red": 2})
    )
    strong = lv.weigh(star, {"red": 2})
    for part, value in strong.parts.items():
        assert value.shape == star.parts[part].shape
        assert torch.equal(value, star.parts[part]) == (not value.is_floating_point())
    without = lv.weigh(star, {"red": 0})
    assert close(2 * star - without, strong, 1e-4)


def test_a_weighed_text_is_one_to_take_words_from(tiny):
    weighed = lv.weigh(lv.text(tiny, STAR), {"star": 0.5})
    places = [0, 0, 1, 2, 2, *rest(3, 30)]
    edit = laid(tiny, STAR, (-1, RED, places), (1, BLUE, places)) - states(tiny, STAR)
    expected = weighed.parts["prompt_embeds"][0].double() + edit
    assert_laid(weighed - lv.text(tiny, RED) + lv.text(tiny, BLUE), expected)


@pytest.mark.parametrize("weight", [-1, 0, 0.5, 1.5, 3])
def test_weights_change_nothing_about_where_texts_lie(tiny, weight):
    night, star = lv.text(tiny, "a red star at night"), lv.text(tiny, "red star")
    weighed = lv.weigh(star, {"red": weight})
    assert_laid(
        weighed + night,
        weighed.parts["prompt_embeds"][0].double() + states(tiny, "a red star at night"),
    )
    moon = lv.text(tiny, "blue moon")
    plain = (night - star + moon).parts["prompt_embeds"][0].double()
    without = lv.weigh(star, {"red": 0})
    # What the weight adds lies where the text lies: on "red star".
    more = (night - star).parts["prompt_embeds"][0] - (night - without).parts["prompt_embeds"][0]
    assert_laid(night - weighed + moon, plain + (weight - 1) * more.double())


def test_a_text_that_shares_a_word_is_not_one_word(tiny):
    edited = lv.text(tiny, "a red star at night") - lv.text(tiny, "a fish")
    assert_laid(edited, states(tiny, "a red star at night") - states(tiny, "a fish"))
    assert "nor a word" in edited.notes[0]


def test_words_left_out_are_found_where_tokens_differ():
    whole = Block(0, 10, (1, 2, 3, 4, 5), 0)
    assert place_less(Block(0, 10, (1, 9, 3, 4, 5), 0), whole) == [0, 0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert place_less(Block(0, 10, (9, 4, 5), 0), whole) == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]


def test_words_are_weighed_in_a_joint_space_too(adapted):
    night, star = (lv.text(adapted, t, space="joint") for t in ("a star at night", "a star at"))
    assert close(lv.weigh(night, {"night": 0}), star)
    picture = lv.image(adapted, photograph(0), name="p")
    mixed = lv.embed(adapted, 'image("p") + weigh("a star", "star", 2)', {"p": photograph(0)})
    assert mixed.space.kind == "joint"
    assert close(mixed, picture + lv.weigh(lv.text(adapted, "a star"), {"star": 2}))


def test_what_cannot_be_weighed_is_refused(tiny):
    star = lv.text(tiny, STAR)
    with pytest.raises(ValueError, match=r'"green" is not in "a red star"'):
        lv.weigh(star, {"green": 2})
    with pytest.raises(ValueError, match="one text"):
        lv.weigh(star + star, {"red": 2})
    with pytest.raises(TypeError, match="weight of 'red' must be a number"):
        lv.weigh(star, {"red": "much"})
    for wrong in ("red", {1: 2}):
        with pytest.raises(TypeError, match="weights by words"):
            lv.weigh(star, wrong)
    with pytest.raises(ValueError, match="1,000,000"):
        lv.weigh(lv.weigh(star, {"red": 10**5}), {"red": 100})


def test_the_words_of_tokens_are_told(tiny):
    found = lv.tokens(tiny, "a mid-sized Crimson toadstool, star star")
    assert [t.word for t in found if not t.special] == [
        *("a", "mid", "-", "sized", "Crimson", "toadstool", ",", "star", "star"),
    ]
    assert all(token.begins for token in found)
    letters = lv.tokens(shared(SD), "ab ab")
    assert [(t.word, t.begins) for t in letters if not t.special] == [
        *(("ab", True), ("ab", False), ("ab", True), ("ab", False)),
    ]


def test_two_edits_pair_in_their_order(tiny):
    host = "a red star at night"
    terms = [lv.text(tiny, word) for word in (host, RED, "night", BLUE, "day")]
    text, red, night, blue, day = terms
    on_red, on_night = [0, 0, 1, 2, 2, 2, 2, *rest(3, 28)], [0, 0, 0, 0, 0, 1, 2, *rest(3, 28)]
    expected = laid(
        tiny,
        host,
        (-1, RED, on_red),
        (1, BLUE, on_red),
        (-1, "night", on_night),
        (1, "day", on_night),
    )
    assert_laid(text - red + blue - night + day, expected)
    assert_laid(text - red - night + blue + day, expected)
    crossed = laid(
        tiny,
        host,
        (-1, RED, on_red),
        (1, "day", on_red),
        (-1, "night", on_night),
        (1, BLUE, on_night),
    )
    assert_laid(text - red - night + day + blue, crossed)


def test_an_empty_text_has_no_words_to_find(tiny):
    star, empty = lv.text(tiny, STAR), lv.text(tiny, "")
    assert_laid(star - empty, states(tiny, STAR) - states(tiny, ""))
    # Where a word is only taken out, the empty text may come in its place.
    edited = star - lv.text(tiny, RED) + empty
    red = [0, 0, 1, 2, 2, *rest(3, 30)]
    assert_laid(edited, laid(tiny, STAR, (-1, RED, red), (1, "", rest(0))))


LETTERS = {  # positions in the letters' tokenizer: a | r e d | s t a r
    "a word of three letters by one of four": (
        "a red star",
        "red",
        [0, 0, 1, 2, 3, 4, 4, 4, 4, 4, *rest(5, 27)],
        "blue",
        # A longer word keeps its last letters.
        [0, 0, 2, 3, 4, 5, 5, 5, 5, 5, *rest(6, 28)],
    ),
    "a word of three letters by one of two": (
        "a red star",
        "red",
        [0, 0, 1, 2, 3, 4, 4, 4, 4, 4, *rest(5, 27)],
        "ox",
        [0, 0, 1, 1, 2, 3, 3, 3, 3, 3, *rest(4, 26)],
    ),
    "the first word": (
        "red star",
        "red",
        [0, 1, 2, 3, 4, 4, 4, 4, 4, *rest(5, 28)],
        "ox",
        [0, 1, 1, 2, 3, 3, 3, 3, 3, *rest(4, 27)],
    ),
    "the last words, two": (
        "a red star",
        "red star",
        [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, *rest(9, 31)],
        "fish",
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, *rest(6, 28)],
    ),
}


@pytest.mark.parametrize("case", LETTERS)
def test_words_of_several_tokens_are_stretched(case):
    pipe = shared(SD)
    host, gone, gone_places, new, new_places = LETTERS[case]
    edited = lv.text(pipe, host) - lv.text(pipe, gone) + lv.text(pipe, new)
    assert len(gone_places) == len(new_places) == 32
    expected = laid(pipe, host, (-1, gone, gone_places), (1, new, new_places))
    assert_laid(edited, expected)


def test_both_blocks_of_sd3_are_aligned_each_by_its_own_tokens():
    pipe = shared(SD3)
    edited = lv.text(pipe, STAR) - lv.text(pipe, RED) + lv.text(pipe, BLUE)
    clip_red = [0, 0, 1, 2, 3, 4, 4, 4, 4, 4, *rest(5, 27)]
    clip_blue = [0, 0, 2, 3, 4, 5, 5, 5, 5, 5, *rest(6, 28)]
    # T5: a, red, star, end; the word, its end; no mark of the beginning, so the end stands there.
    t5 = [32 + at for at in [1, 0, 1, 1, *range(2, 254)]]
    expected = laid(pipe, STAR, (-1, RED, clip_red + t5), (1, BLUE, clip_blue + t5))
    assert_laid(edited, expected)
    pooled = [lv.text(pipe, t).parts["pooled_prompt_embeds"].double() for t in (STAR, RED, BLUE)]
    assert torch.allclose(
        edited.parts["pooled_prompt_embeds"].double(), pooled[0] - pooled[1] + pooled[2], atol=1e-5
    )


@pytest.mark.parametrize(("name", "length"), [(FLUX, 512), (PIXART, 120)])
def test_t5_alone_is_aligned(name, length):
    pipe = shared(name)
    places = [1, 0, 1, 1, *range(2, length - 2)]
    edited = lv.text(pipe, STAR) - lv.text(pipe, RED) + lv.text(pipe, BLUE)
    assert_laid(edited, laid(pipe, STAR, (-1, RED, places), (1, BLUE, places)))


def test_pixart_finds_words_in_any_case():
    pipe = shared(PIXART)  # which writes prompts in small letters before it reads them
    shouted = lv.text(pipe, "A RED STAR") - lv.text(pipe, "Red") + lv.text(pipe, BLUE)
    assert equal(shouted, lv.text(pipe, STAR) - lv.text(pipe, RED) + lv.text(pipe, BLUE))


def test_instructions_before_a_prompt_leave_it_position_by_position():
    pipe = shared(SANA)
    edited = lv.text(pipe, STAR) - lv.text(pipe, RED) + lv.text(pipe, BLUE)
    assert_laid(edited, states(pipe, STAR) - states(pipe, RED) + states(pipe, BLUE))


@pytest.mark.filterwarnings("ignore:the text is longer")
def test_a_word_beyond_what_is_read_is_not_found():
    pipe = shared(SD)
    long = f"{'a ' * 28}red star"  # 28 letters, and two of red's three are left
    edited = lv.text(pipe, long) - lv.text(pipe, RED)
    assert_laid(edited, states(pipe, long) - states(pipe, RED))
    kept = f"{'a ' * 27}red star"
    edited = lv.text(pipe, kept) - lv.text(pipe, RED)
    assert_laid(edited, laid(pipe, kept, (-1, RED, [*[0] * 28, 1, 2, 3, 4])))


@given(
    size=st.integers(0, 6),
    host=st.integers(1, 8),
    first=st.booleans(),
    length=st.integers(12, 20),
    data=st.data(),
)
def test_places_are_within_the_term_and_in_order_on_the_span(size, host, first, length, data):
    start = data.draw(st.integers(0, host - 1))
    stop = data.draw(st.integers(start + 1, host))
    under = Block(0, length, tuple(range(host)), int(first))
    term = Block(0, length, tuple(range(size)), int(first))
    span = (under.first + start, under.first + stop)
    places = place(term, under, span)
    assert len(places) == length and all(0 <= at < length for at in places)
    inside, after = places[span[0] : span[1]], places[span[1] :]
    assert inside == sorted(inside) and after == sorted(after)
    if size:
        assert all(term.first <= at < term.end for at in inside)
        assert inside[-1] == term.end - 1 or size <= len(inside)
        assert len(set(inside)) == min(size, len(inside))
    assert after[0] == term.end


# The algebra

TEXTS = ["a red star", "red", "a blue fish at night", "blue", "day", ""]
JOINTLY, PROMPTLY = "joint", "prompt"
WEIGHTS = st.integers(-30, 30).map(lambda tenths: tenths / 10)
AMOUNTS = st.integers(0, 10).map(lambda tenths: tenths / 10)


def atoms(kind):
    """Texts, and pictures where they have a place."""
    pipe = shared(PRIOR) if kind == JOINTLY else shared(SD)
    texts = st.sampled_from(TEXTS).map(lambda text: lv.text(pipe, text))
    texts |= st.builds(
        lambda text, weight: lv.weigh(lv.text(pipe, text), {text.split()[-1]: weight}),
        st.sampled_from([text for text in TEXTS if text]),
        WEIGHTS,
    )
    if kind == PROMPTLY:
        return texts
    return texts | st.integers(0, 3).map(lambda n: lv.image(pipe, photograph(n), name=f"n{n}"))


def _nested(inner):
    functions = st.sampled_from([lv.keep_norm, lv.project_out])
    between = st.sampled_from([lv.lerp, lv.slerp])
    several = st.lists(st.tuples(inner, WEIGHTS), min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda a, b: ("add", a, b), inner, inner),
        st.builds(lambda a, b: ("subtract", a, b), inner, inner),
        st.builds(lambda a, w: ("scale", a, w), inner, WEIGHTS),
        st.builds(lambda a: ("normalize", a), inner),
        st.builds(lambda f, a, b: (f, a, b), functions, inner, inner),
        st.builds(lambda f, a, b, t: (f, a, b, t), between, inner, inner, AMOUNTS),
        several.map(lambda pairs: ("mix", *pairs)),
    )


def calculate(plan):
    if isinstance(plan, lv.Embedding):
        return plan
    what, *given = plan
    if what == "mix":
        embeddings, weights = zip(*given, strict=True)
        return lv.mix(list(map(calculate, embeddings)), weights)
    given = [calculate(one) if isinstance(one, (tuple, lv.Embedding)) else one for one in given]
    if what == "add":
        return given[0] + given[1]
    if what == "subtract":
        return given[0] - given[1]
    if what == "scale":
        return given[0] * given[1]
    return (lv.normalize if what == "normalize" else what)(*given)


KINDS = pytest.mark.parametrize("kind", [JOINTLY, PROMPTLY])


@KINDS
@settings(max_examples=60)
@given(data=st.data())
def test_what_an_embedding_prints_makes_it_again(kind, data):
    pipe = shared(PRIOR) if kind == JOINTLY else shared(SD)
    plan = data.draw(st.recursive(atoms(kind), _nested, max_leaves=5))
    try:
        embedding = calculate(plan)
    except ValueError:  # zero, or weights without a mean
        assume(False)
    pictures = {f"n{n}": photograph(n) for n in range(4)}
    written = str(embedding.expression)
    again = lv.embed(pipe, written, pictures)
    assert equal(again, embedding), written
    assert str(again.expression) == written


@KINDS
@settings(max_examples=40)
@given(data=st.data())
def test_sums_do_not_depend_on_order_or_grouping(kind, data):
    exact = WEIGHTS.map(lambda weight: Fraction(str(weight)))
    a, b, c = (data.draw(exact) * data.draw(atoms(kind)) for _ in range(3))
    k, m = data.draw(exact), data.draw(exact)
    assert close(a + b, b + a) and equal((a + b) + c, a + (b + c))
    assert close(k * (a + b), k * a + k * b) and equal((k + m) * a, k * a + m * a)
    assert equal(a - b, a + -b) and equal(a - b, a + (-1) * b)
    assert equal(a + b + c - b - c, a) and equal(k * (m * a), (k * m) * a)
    assert (a - a).terms == () and not (a - a).main.any()


@KINDS
@settings(max_examples=40)
@given(data=st.data())
def test_mixes_and_lines(kind, data):
    several = data.draw(st.lists(st.tuples(atoms(kind), WEIGHTS), min_size=1, max_size=4))
    embeddings, weights = zip(*several, strict=True)
    total = sum(Fraction(str(weight)) for weight in weights)
    if not total:
        with pytest.raises(ValueError, match="add up to zero"):
            lv.mix(embeddings, weights)
    else:
        added = weights[0] * embeddings[0]
        for weight, embedding in zip(weights[1:], embeddings[1:], strict=True):
            added = added + weight * embedding
        assert equal(lv.mix(embeddings, weights), added / total)
    even = embeddings[0]
    for embedding in embeddings[1:]:
        even = even + embedding
    assert equal(lv.mix(embeddings), even / len(embeddings))
    a, b, t = embeddings[0], embeddings[-1], data.draw(AMOUNTS)
    assert equal(lv.lerp(a, b, 0), a) and equal(lv.lerp(a, b, 1), b)
    assert close(lv.lerp(a, b, t), lv.lerp(b, a, 1 - t), 1e-6)
    assert close(lv.lerp(a, b, t), a + t * (b - a), 1e-6)
    assert equal(a + lv.direction([a], [b]), b)


def rows(embedding):
    """Its vectors: one a token, or one."""
    main = embedding.main.double()
    return main.reshape(-1, main.shape[-1])


@KINDS
@settings(max_examples=40)
@given(data=st.data())
def test_arcs(kind, data):
    a, b = (lv.normalize(data.draw(atoms(kind))) for _ in range(2))
    t = data.draw(AMOUNTS)
    on_arc, x, y = rows(lv.slerp(a, b, t)), rows(a), rows(b)
    cosines = (x * y).sum(-1)
    assume(bool((cosines > -0.99).all()))
    assert torch.allclose(on_arc.norm(dim=-1), torch.ones(len(on_arc)).double(), atol=2e-4)
    angles = cosines.clamp(-1, 1).arccos()
    turned = (x * on_arc).sum(-1).clamp(-1, 1).arccos()
    assert torch.allclose(turned, t * angles, atol=2e-3)
    # In the plane of both ends: nothing is left without its shares along them.
    across = y - cosines[:, None] * x
    unit = across / across.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    left = on_arc - (on_arc * x).sum(-1, keepdim=True) * x
    left = left - (left * unit).sum(-1, keepdim=True) * unit
    assert float(left.norm(dim=-1).max()) < 1e-3
    assert close(lv.slerp(a, b, t), lv.slerp(b, a, 1 - t), 1e-5)


@KINDS
@settings(max_examples=40)
@given(data=st.data())
def test_norms_and_right_angles(kind, data):
    a, b, c = (data.draw(atoms(kind)) for _ in range(3))
    k = data.draw(WEIGHTS.filter(bool))
    unit = lv.normalize(k * a)
    assert torch.allclose(rows(unit).norm(dim=-1), torch.ones(1).double(), atol=1e-6)
    assert close(unit, lv.normalize((abs(k) / k) * a), 1e-5)
    assume((a - b).terms)
    kept = lv.keep_norm(a - 0.5 * b, c)
    assert torch.allclose(rows(kept).norm(dim=-1), rows(c).norm(dim=-1), rtol=1e-5)
    without = lv.project_out(a, b)
    shares = (rows(without) * rows(lv.normalize(b))).sum(-1)
    assert float(shares.abs().max()) < 1e-5 * max(1.0, float(rows(a).norm(dim=-1).max()))
    assert close(lv.project_out(without, b), without)
    assert close(lv.project_out(k * a, b), k * without, 1e-4)
    assert not lv.project_out(b, b).main.abs().max() > 1e-5


def test_pooled_parts_and_tokens_are_each_normalised():
    pipe = shared(SDXL)
    unit = lv.normalize(lv.text(pipe, STAR))
    for part in unit.parts.values():
        assert torch.allclose(part.norm(dim=-1), torch.ones(1), atol=1e-6)


def test_functions_of_masked_prompts_attend_to_what_any_does():
    pipe = shared(PIXART)
    a, b = lv.text(pipe, STAR), lv.text(pipe, FISH)
    expected = a.parts["prompt_attention_mask"] | b.parts["prompt_attention_mask"]
    for embedding in (lv.slerp(a, b, 0.5), lv.keep_norm(a, b), lv.lerp(a, b, 0.5)):
        assert torch.equal(embedding.parts["prompt_attention_mask"], expected)
        assert np.isfinite(draw(pipe, **lv.condition(pipe, embedding))).all()
    single = lv.normalize(a).parts["prompt_attention_mask"]
    assert torch.equal(single, a.parts["prompt_attention_mask"])


def test_a_product_in_a_mix_is_no_weight_of_it():
    pipe = shared(PRIOR)
    a, b = lv.text(pipe, STAR), lv.text(pipe, FISH)
    mixed = lv.mix([2 * a, b])
    assert close(mixed, a + b / 2, 1e-6)
    assert equal(lv.embed(pipe, str(mixed.expression)), mixed)
    assert close(lv.embed(pipe, f'mix(2 * "{STAR}", "{FISH}")'), (2 * a + b) / 3, 1e-6)
    assert str(lv.mix([a, b], [2, 1]).expression) == f'mix(2 * "{STAR}", "{FISH}")'


def test_weights_that_could_not_be_read_again_are_refused():
    star = lv.text(shared(SD), STAR)
    with pytest.raises(ValueError, match="1,000,000"):
        star * 10**6 * 10


def test_sums_of_lists_and_what_is_no_embedding():
    star, fish = lv.text(shared(SD), STAR), lv.text(shared(SD), FISH)
    assert equal(sum([star, fish]), star + fish)
    for wrong in (
        lambda: lv.slerp("a", star, 0.5),
        lambda: star.cosine("a"),
        lambda: 3 + star,
        lambda: lv.mix(star, fish),
        lambda: lv.direction(star, fish),
        lambda: lv.embed(shared(SD), '"a"', ["picture"]),
    ):
        with pytest.raises(TypeError, match=r"embed it first|in a list|lv\.text|by their names"):
            wrong()


def test_cosines_and_norms():
    pipe = shared(PRIOR)
    a, b = lv.text(pipe, STAR), lv.image(pipe, photograph())
    x, y = a.main[0].double().numpy(), b.main[0].double().numpy()
    assert a.norm == pytest.approx(np.linalg.norm(x))
    assert a.cosine(b) == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert a.cosine(-2 * a) == pytest.approx(-1) and np.isnan(a.cosine(b - b))


def test_an_embedding_describes_itself():
    pipe = shared(PRIOR)
    embedding = 0.5 * lv.text(pipe, STAR) - lv.image(pipe, photograph(), name="cat")
    described = repr(embedding)
    pattern = rf'Embedding\(0\.5 \* "{STAR}" - image\("cat"\), joint space \w{{8}}, norm [\d.]+\)'
    assert re.fullmatch(pattern, described)
    assert [weight for weight, _ in embedding.terms] == [Fraction(1, 2), Fraction(-1)]


# What is no condition


@pytest.mark.parametrize("name", [SD, PIXART, PRIOR])
def test_zero_is_no_condition(name):
    pipe = shared(name)
    a = lv.text(pipe, STAR)
    target = shared(DECODER) if name == PRIOR else pipe
    for zero in (a - a, 0 * a, lv.mix([a, a], [1, 2]) - a):
        with pytest.raises(lv.EmbeddingError, match="is zero: its terms cancel out"):
            lv.condition(target, zero)
        assert draw(target, **lv.condition(target, a, negative=zero)).std() > 0
    with pytest.raises(lv.EmbeddingError, match="is zero"):
        lv.normalize(a - a)
    with pytest.raises(lv.EmbeddingError, match="is zero"):
        lv.keep_norm(a - a, a)
    with pytest.raises(lv.EmbeddingError, match="is zero"):
        lv.project_out(a, a - a)


def test_numbers_that_half_precision_does_not_reach_are_no_condition():
    half = copy.deepcopy(shared(SD)).to(dtype=torch.float16)
    star = lv.text(half, STAR)
    with pytest.raises(lv.EmbeddingError, match=r"in prompt_embeds that are not finite.*too large"):
        lv.condition(half, 100_000 * star)
    with pytest.raises(lv.EmbeddingError, match="not finite"):
        lv.condition(half, star, negative=100_000 * star)
    # On the way there they may be large.
    assert equal(100_000 * star / 100_000, star)
    # A condition that is finite where it was made, and not where it is drawn.
    large = 100_000 * lv.text(shared(SD), STAR)
    assert lv.condition(shared(SD), large)["prompt_embeds"].isfinite().all()
    with pytest.raises(lv.EmbeddingError, match="not finite"):
        lv.condition(half, large)


def test_broken_encoders_give_no_condition():
    pipe = build(SD)
    with torch.no_grad():
        query_weight(pipe).fill_(float("nan"))
    with pytest.raises(lv.EmbeddingError, match="not finite"):
        lv.condition(pipe, lv.text(pipe, STAR))


# Texts


def test_long_texts_are_cut_and_said_to_be():
    pipe = shared(SD)
    long = f"{'a ' * 28}red star"
    found = lv.tokens(pipe, long)
    assert [token.text for token in found if not token.kept] == ["d", "s", "t", "a", "r"]
    assert sum(token.kept for token in found) == 32
    assert [token.special for token in found] == [True, *[False] * (len(found) - 2), True]
    for embed in (
        lambda text: lv.text(build(SD), text),
        lambda text: lv.embed(build(SD), f'"day" + 2 * "{text}"'),
        lambda text: lv.condition(pipe, lv.text(pipe, STAR), negative=text),
    ):
        with pytest.warns(UserWarning, match=r"'d s t a r' was cut off") as record:
            embed(long)
        assert record[0].filename == __file__, "the warning points at who gave the text"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lv.text(pipe, f"{'a ' * 27}red")  # just as long as is read


def test_texts_for_the_joint_space_are_cut_too():
    with pytest.warns(UserWarning, match="was cut off"):
        lv.text(build(PRIOR), "a red star " * 8)


T5_TOKENS = ["a", "red", "star", "</s>"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (SD, ["<|startoftext|>", *"aredstar", "<|endoftext|>"]),
        (SDXL, ["<|startoftext|>", *"aredstar", "<|endoftext|>"]),
        (SD3, T5_TOKENS),
        (FLUX, T5_TOKENS),
        (PIXART, T5_TOKENS),
        (SANA, ["<bos>", "a", "red", "star"]),
        (PRIOR, ["<|startoftext|>", *"aredstar", "<|endoftext|>"]),
    ],
)
def test_tokens_are_those_of_the_encoder_that_reads_most(name, expected):
    assert [token.text for token in lv.tokens(shared(name), STAR)] == expected


def test_unknown_letters_are_no_marks():
    found = lv.tokens(shared(SD), "é " * 40)
    assert sum(token.special for token in found) == 2
    assert sum(token.kept for token in found) == 32


def test_an_empty_text_is_a_text():
    for name in PROMPTED:
        pipe = shared(name)
        empty = lv.text(pipe, "")
        assert np.array_equal(draw(pipe, **lv.condition(pipe, empty)), draw(pipe, prompt=""))


@pytest.mark.parametrize("wrong", [None, 5, b"a star", ["a star"]])
def test_a_text_is_a_string(wrong):
    pipe = shared(SD)
    with pytest.raises(TypeError, match="a text is a str, but this is a"):
        lv.text(pipe, wrong)
    with pytest.raises(TypeError, match="a text is a str, but this is a"):
        lv.tokens(pipe, wrong)


def test_wrong_arguments_are_named():
    pipe = shared(SD)
    star = lv.text(pipe, STAR)
    for function in (lv.text, lv.image, lv.embed, lv.condition, lv.tokens):
        for wrong in (None, "a pipe", pipe.unet):
            with pytest.raises(TypeError, match=r"pipe must be a diffusers pipeline.*load_tiny"):
                function(wrong, STAR)
    for function in (lv.text, lv.tokens, lv.embed):
        with pytest.raises(
            ValueError, match=r"space is 'clip'; expected 'prompt', 'joint' or None"
        ):
            function(pipe, f'"{STAR}"', space="clip")
    with pytest.raises(TypeError, match="embedding must be an Embedding, but this is a str"):
        lv.condition(pipe, STAR)
    with pytest.raises(TypeError, match="negative must be an Embedding, a str or None"):
        lv.condition(pipe, star, negative=7)
    with pytest.raises(ValueError, match=r"names the picture 'cat', but images has 'dog'.*images="):
        lv.embed(seeing(SD), 'image("cat")', {"dog": photograph()})
    with pytest.raises(lv.ExpressionError):
        lv.embed(pipe, "a star")


@pytest.mark.parametrize(
    ("operation", "error", "says"),
    [
        (lambda a: a + 1, TypeError, r"\+ needs two embeddings"),
        (lambda a: a - "red", TypeError, r"embed it first: lv.text\(pipe, 'red'\)"),
        (lambda a: a * a, TypeError, "not multiplied by another embedding"),
        (lambda a: a / a, TypeError, "not divided by another embedding"),
        (lambda a: a / 0, ZeroDivisionError, "cannot be divided by zero"),
        (lambda a: a * float("nan"), ValueError, "must be a finite number, but this one is nan"),
        (lambda a: a * float("inf"), ValueError, "must be a finite number"),
        (lambda a: a * 1e7, ValueError, "must lie within ±1,000,000"),
        (lambda a: a * True, TypeError, "must be a number"),
        (lambda a: a * "2", TypeError, "must be a number"),
        (lambda a: lv.lerp(a, a, 1.5), ValueError, r"from 0 .* to 1 .* 1\.5; to go beyond"),
        (lambda a: lv.slerp(a, a, -0.5), ValueError, r"from 0 .* to 1 .* -0\.5"),
        (lambda a: lv.lerp(a, a, float("nan")), ValueError, "amount of lerp must be a finite"),
        (lambda a: lv.mix([]), ValueError, "at least one embedding"),
        (lambda a: lv.mix([a], [1, 2]), ValueError, "1 embeddings and 2 weights"),
        (lambda a: lv.mix([a, a], [1, -1]), ValueError, "add up to zero"),
        (lambda a: lv.mix([a], [float("nan")]), ValueError, "finite"),
    ],
)
def test_arithmetic_that_means_nothing(operation, error, says):
    with pytest.raises(error, match=says):
        operation(lv.text(shared(SD), STAR))


# Pictures


def saved(path, picture, **options):
    picture.save(path, **options)
    return path


def seen(picture):
    return np.asarray(as_picture(picture))


def test_pictures_come_in_many_ways(tmp_path):
    pipe, picture = shared(PRIOR), photograph()
    expected = lv.image(pipe, picture)
    path = saved(tmp_path / "it.png", picture)
    for way in (path, str(path), np.asarray(picture), Image.open(path), picture.convert("RGBA")):
        assert equal(lv.image(pipe, way), expected)
    assert str(lv.image(pipe, picture, name="cat").expression) == 'image("cat")'
    assert re.fullmatch(r'image\("picture [0-9a-f]{6}"\)', str(expected.expression))
    twice = lv.image(pipe, picture, name="cat") - lv.image(pipe, path, name="dog")
    assert twice.terms == (), "the same picture by two names is one picture"


def test_transparent_pictures_lie_on_white():
    picture = photograph()
    clear = picture.copy()
    clear.putalpha(Image.fromarray(np.full((24, 24), 51, np.uint8)))
    expected = 255 * 0.8 + 0.2 * np.asarray(picture, float)
    assert np.abs(seen(clear) - expected).max() <= 1
    assert (seen(Image.new("LA", (8, 8), (0, 0))) == 255).all()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 10, 30])
    assert (seen(palette) == [200, 10, 30]).all()
    palette.info["transparency"] = 1
    assert (seen(palette) == 255).all()


def test_pictures_of_other_modes(tmp_path):
    picture = photograph()
    for mode in ("L", "CMYK", "YCbCr", "1", "P"):
        other = picture.convert(mode)
        assert np.array_equal(seen(other), np.asarray(other.convert("RGB")))
    with Image.open(saved(tmp_path / "it.jpg", picture.convert("CMYK"))) as other:
        assert np.array_equal(seen(tmp_path / "it.jpg"), np.asarray(other.convert("RGB")))


def test_pictures_of_sixteen_bits_keep_their_shades(tmp_path):
    grey = np.linspace(0, 65535, 24 * 24).round().astype(np.uint16).reshape(24, 24)
    expected = np.repeat((grey / 257).round().astype(np.uint8)[..., None], 3, axis=-1)
    deep = Image.fromarray(grey)
    assert deep.mode == "I;16"
    ways = [deep, saved(tmp_path / "it.png", deep), saved(tmp_path / "it.tif", deep)]
    ways.append(Image.fromarray(grey.astype(np.int32)))
    for way in ways:
        assert np.array_equal(seen(way), expected)
    with pytest.raises(ValueError, match="expected 16 bits, 0 to 65535"):
        as_picture(Image.fromarray(grey.astype(np.int32) * 2))
    with pytest.raises(ValueError, match=r"floats \(mode F\)"):
        as_picture(Image.fromarray(grey.astype(np.float32)))


def test_pictures_are_turned_upright(tmp_path):
    picture = photograph().crop((0, 0, 24, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "it.png", picture, exif=exif)
    assert np.array_equal(seen(path), np.rot90(np.asarray(picture), -1))


def test_large_pictures_are_made_smaller():
    wide = Image.new("RGB", (4000, 1000), "red")
    assert as_picture(wide).size == (1024, 256) and wide.size == (4000, 1000)
    with pytest.raises(ValueError, match=r"10000 × 7000 pixels; .* at most 64,000,000"):
        as_picture(Image.new("1", (10000, 7000)))
    with pytest.raises(ValueError, match="expected at least one"):
        as_picture(Image.new("RGB", (0, 5)))


def bomb(path, width, height):
    """A file that says it is a large picture."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("size", [(10_000, 7_000), (10_000, 10_000), (100_000, 100_000)])
def test_files_that_would_burst_are_not_unpacked(tmp_path, size):
    assert size[0] * size[1] > MOST_PIXELS
    path = bomb(tmp_path / "bomb.png", *size)
    with pytest.raises(ValueError, match=r"bomb\.png' has too many pixels, more than 64,000,000"):
        lv.image(shared(PRIOR), path)


def test_files_that_are_no_pictures(tmp_path):
    pipe = shared(PRIOR)
    with pytest.raises(ValueError, match=r"there is no picture 'cat\.png'"):
        lv.image(pipe, "cat.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png' cannot be read as a picture"):
        lv.image(pipe, tmp_path / "text.png")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        lv.image(pipe, tmp_path)
    whole = io.BytesIO()
    photograph(side=64).save(whole, "PNG")
    (tmp_path / "half.png").write_bytes(whole.getvalue()[:4000])
    with pytest.raises(ValueError, match=r"half\.png' cannot be read as a picture"):
        lv.image(pipe, tmp_path / "half.png")
    with pytest.raises(ValueError, match="the picture cannot be read"):
        lv.image(pipe, Image.open(tmp_path / "half.png"))


@pytest.mark.parametrize("wrong", [None, 5, b"\x89PNG", [1, 2], torch.zeros(8)])
def test_a_picture_is_a_picture(wrong):
    with pytest.raises(TypeError, match="a picture is a PIL picture.* but this is a"):
        lv.image(shared(PRIOR), wrong)


def test_arrays_of_greys_are_pictures():
    grey = np.asarray(photograph().convert("L"))
    assert np.array_equal(seen(grey), np.repeat(grey[..., None], 3, axis=-1))


AS_IT_IS = np.asarray(photograph().crop((0, 0, 24, 12)))


@pytest.mark.parametrize(
    ("array", "cure"),
    [
        (AS_IT_IS.transpose(2, 0, 1), "array.transpose(1, 2, 0)"),
        (AS_IT_IS[None], "array[0]"),
        (AS_IT_IS.transpose(2, 0, 1)[None], "array[0].transpose(1, 2, 0)"),
        (AS_IT_IS / 255, "(255 * array).round().astype('uint8')"),
        (AS_IT_IS[None] / 255, "(255 * array[0]).round().astype('uint8')"),
        (AS_IT_IS.astype(np.int64), "array.astype('uint8')"),
    ],
    ids=[
        "channels first",
        "batch",
        "batch, channels first",
        "floats",
        "batch of floats",
        "integers",
    ],
)
def test_arrays_of_other_forms_are_told_a_cure_that_fits(array, cure):
    says = r"uint8 of shape \(height, width, 3\), but this one is .*; give " + re.escape(cure)
    with pytest.raises(ValueError, match=says):
        lv.image(shared(PRIOR), array)
    assert np.array_equal(seen(eval(cure, {"array": array})), AS_IT_IS)


@pytest.mark.parametrize("shape", [(), (8,), (8, 8, 2), (2, 3, 4, 5, 6), (0, 8, 8, 3)])
def test_arrays_that_nothing_can_be_made_of_are_told_no_cure(shape):
    with pytest.raises(ValueError, match=r"but this one is float64 of shape \([\d, ]*\)$"):
        as_picture(np.zeros(shape))


FORMS = {
    "channels last": lambda x: x,
    "channels first": lambda x: np.moveaxis(x, -1, 0),
    "batch": lambda x: x[None],
    "batch, channels first": lambda x: np.moveaxis(x, -1, 0)[None],
    "grey": lambda x: x[..., 0],
    "grey, one channel first": lambda x: x[None, ..., 0],
    "grey, one channel last": lambda x: x[..., :1],
}


@given(st.sampled_from(list(FORMS)), st.sampled_from(["uint8", "float32", "bfloat16", "bool"]))
@settings(deadline=None)
def test_tensors_are_told_a_cure_that_makes_the_same_picture_of_them(form, dtype):
    pixels = np.where(AS_IT_IS > 127, 255, 0).astype(np.uint8)
    kind = getattr(torch, dtype)
    tensor = torch.from_numpy(np.ascontiguousarray(FORMS[form](pixels)))
    tensor = tensor if dtype == "uint8" else (tensor / 255).to(kind)
    if kind.is_floating_point:
        tensor.requires_grad_()
    with pytest.raises(TypeError, match="a picture is a PIL picture") as refused:
        as_picture(tensor)
    told = str(refused.value)
    assert f"this is a Tensor, {dtype} of shape {tuple(tensor.shape)}" in told
    cure = re.search(r"give (.*\.numpy\(\))", told)[1]
    expected = pixels[..., :1].repeat(3, axis=-1) if "grey" in form else pixels
    assert np.array_equal(seen(eval(cure, {"tensor": tensor})), expected)


# What is left behind


def test_embeddings_keep_no_pipeline_alive():
    for name, make in {
        SD: lambda pipe: lv.text(pipe, STAR) - lv.text(pipe, RED),
        PRIOR: lambda pipe: lv.image(pipe, photograph()) - lv.text(pipe, STAR),
    }.items():
        pipe = build(name)
        embedding = make(pipe)
        gone = weakref.ref(pipe), weakref.ref(pipe.text_encoder)
        del pipe
        gc.collect()
        assert gone[0]() is None
        assert embedding.encoder.pipe is None
        assert embedding.norm > 0 and not (embedding - embedding).main.any()
        if name == SD:
            assert gone[1]() is None
            twin = build(SD)
            assert draw(twin, **lv.condition(twin, embedding)).std() > 0.01
            with pytest.raises(lv.SpaceError, match=r"is gone.*keep a reference to it"):
                embedding.encoder.text("something new")


def inventory(pipe):
    """All that could be changed on a pipeline, but for what its parts do when they are called."""
    modules = {name: part for name, part in vars(pipe).items() if isinstance(part, torch.nn.Module)}
    found = {"": {name: id(value) for name, value in vars(pipe).items()}}
    for name, part in modules.items():
        for inner, module in part.named_modules():
            held = {key: id(value) for key, value in vars(module).items() if key[0] != "_"}
            hooks = {
                key: len(value)
                for key, value in vars(module).items()
                if "hooks" in key and isinstance(value, dict)
            }
            found[f"{name}.{inner}"] = held | hooks
    weights = {n: {k: v.clone() for k, v in m.state_dict().items()} for n, m in modules.items()}
    return found, weights


@pytest.mark.parametrize("name", [*PROMPTED, PRIOR, UNCLIP, "adapter"])
def test_nothing_is_written_on_the_pipeline_and_no_random_number_drawn(name):
    pipe = build(SD, adapters=("plain",)) if name == "adapter" else build(name)
    if name in PROMPTED:
        draw(pipe, prompt=STAR)  # transformers adds hooks of its own when it is first called
    found, weights = inventory(pipe)
    torch.manual_seed(3)
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    embedding = lv.text(pipe, STAR) - 0.5 * lv.text(pipe, RED)
    if name in (PRIOR, UNCLIP, "adapter"):
        embedding = lv.image(pipe, photograph())
    if name != PRIOR:
        lv.condition(pipe, embedding, guidance_scale=2.0)
    else:
        lv.condition(shared(DECODER), embedding)
    lv.tokens(pipe, STAR)
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])
    found_after, weights_after = inventory(pipe)
    assert found_after == found
    for part, tensors in weights.items():
        assert all(torch.equal(value, weights_after[part][key]) for key, value in tensors.items())


def test_what_is_handed_out_is_a_copy():
    pipe = shared(SDXL)
    before = lv.condition(pipe, lv.text(pipe, STAR), negative=FISH)
    kept = {name: value.clone() for name, value in before.items() if torch.is_tensor(value)}
    for name in kept:
        before[name].zero_()
    after = lv.condition(pipe, lv.text(pipe, STAR), negative=FISH)
    assert all(torch.equal(after[name], value) for name, value in kept.items())


def test_a_recorded_run_is_the_same_run():
    pipe = shared(SD)
    given = lv.condition(pipe, lv.text(pipe, STAR) - lv.text(pipe, RED) + lv.text(pipe, BLUE))
    bare = draw(pipe, **given)
    with lv.Recorder(pipe, frames=None) as recorder:
        assert np.array_equal(draw(pipe, **given), bare)
    assert len(recorder.trajectory) == 2
