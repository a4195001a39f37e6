"""Damage: exact effects against references, and properties of all kinds."""

import functools
import inspect
import io
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import fft, ndimage
from skimage import data, draw

from restoration import damage
from restoration.damage import compose, fields
from tests import selection

SHAPE = (56, 72)
KEY = jax.random.key(7)

random_kind = pytest.mark.parametrize("name", damage.KINDS)


def _image(shape=SHAPE):
    image = data.astronaut()[20 : 20 + shape[0], 150 : 150 + shape[1]]
    return jnp.asarray(image, jnp.float32) / 255


def _grey(shape=SHAPE, value=0.5):
    return jnp.full((*shape, 3), value, jnp.float32)


def _pair(result):
    """Returns (image, mask or None) of any kind."""
    return result if isinstance(result, tuple) else (result, None)


@functools.cache
def _batch(kinds):
    """Returns a kind, or damage of several kinds, jitted for a batch of 16 keys.

    Tests share these, since compiling takes most of their time.
    """

    def one(key, image, severity):
        if isinstance(kinds, str):
            return damage.KINDS[kinds](key, image, severity=severity)
        return damage.damage(key, image, severity=severity, kinds=kinds)

    return jax.jit(jax.vmap(one, in_axes=(0, None, None)))


KEYS = jax.random.split(KEY, 16)


# --- Properties of all kinds ------------------------------------------------


@random_kind
def test_signature_is_key_image_severity(name):
    parameters = inspect.signature(damage.KINDS[name]).parameters
    assert list(parameters) == ["key", "image", "severity"]
    assert parameters["severity"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["severity"].default is inspect.Parameter.empty


@pytest.mark.parametrize(
    "name", sorted(set(damage.__all__) - {"FILM", "KINDS", "PHOTO", "grain_noise"})
)
def test_image_comes_first_and_options_by_name(name):
    function = getattr(damage, name)
    parameters = list(inspect.signature(function).parameters.values())
    positional = ["key"] if name.startswith("random_") or name == "damage" else []
    positional.append("image")
    assert [p.name for p in parameters[: len(positional)]] == positional
    rest = parameters[len(positional) :]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in rest)
    assert function.__doc__


def test_every_random_effect_is_a_kind_and_groups_contain_kinds():
    random_effects = {name for name in damage.__all__ if name.startswith("random_")}
    assert {f.__name__ for f in damage.KINDS.values()} == random_effects
    assert set(damage.FILM) < set(damage.PHOTO) <= set(damage.KINDS)


def test_only_dirt_returns_a_mask():
    for name, kind in damage.KINDS.items():
        result = jax.eval_shape(
            lambda image, kind=kind: kind(KEY, image, severity=1.0), _image()
        )
        assert isinstance(result, tuple) == (name in compose._DIRT), name


# Each kind, and slowly all of a print together.
all_kinds = pytest.mark.parametrize(
    "kinds",
    selection.slow_but(damage.KINDS, [*damage.KINDS, damage.PHOTO]),
    ids=str,
)


@all_kinds
def test_severity_zero_and_below_change_no_bit(kinds):
    image = _image()
    for severity in (0.0, -1.0, float("nan")):
        after, mask = _pair(_batch(kinds)(KEYS, image, severity))
        np.testing.assert_array_equal(after, np.stack([image] * 16))
        assert mask is None or not mask.any()


@all_kinds
def test_stays_finite_and_in_range(kinds):
    for severity in (0.5, 10.0, 1e6, float("inf")):
        for image in (_image(), _grey(value=0.0), _grey(value=1.0)):
            for array in jax.tree.leaves(_batch(kinds)(KEYS, image, severity)):
                assert array.dtype == jnp.float32
                assert np.isfinite(array).all()
                assert array.min() >= 0 and array.max() <= 1


@pytest.mark.parametrize(
    "name",
    selection.slow_but(
        ["flicker", "grain", "weave"],
        ["blur", "weave", "cast", "flicker", "grain", "jpeg", "dirt", "hairs", "dust"],
    ),
)
def test_eager_jit_and_vmap_draw_the_same(name):
    image, kind = _image(), damage.KINDS[name]
    for severity in (0.0, 3.0):
        eager = jax.tree.leaves(kind(KEYS[3], image, severity=severity))
        alone = jax.tree.leaves(jax.jit(kind)(KEYS[3], image, severity=severity))
        batch = jax.tree.leaves(_batch(name)(KEYS, image, severity))
        for one, two, three in zip(eager, alone, batch, strict=True):
            for other in (two, three[3]):
                # JPEG rounds: a coefficient near a half may be rounded either way.
                close = np.isclose(one, other, atol=2e-4)
                assert close.mean() > (0.97 if name == "jpeg" else 0.9999)


@pytest.mark.parametrize("name", compose._DIRT)
def test_mask_shows_where_the_image_changed(name):
    after, mask = _batch(name)(KEYS, _grey(), 4.0)
    changed = np.abs(np.asarray(after) - 0.5).max(-1)
    mask = np.asarray(mask)
    assert mask.max() > 0.2
    assert changed[mask == 0].max(initial=0) == 0
    # All dirt but a few tints differs from middle grey.
    assert (changed[mask > 0.02] > 0).mean() > 0.99
    assert (changed <= mask * 0.5 + 1e-6).all()


@pytest.mark.parametrize("name", sorted(set(damage.KINDS) - set(compose._DIRT)))
def test_tone_kinds_change_most_of_the_image(name):
    image = _image()
    changed = np.abs(_batch(name)(KEYS, image, 2.0) - image).max(-1) > 1e-4
    assert changed.mean() > 0.5


def test_other_kinds_do_not_change_what_a_kind_draws():
    image = _grey()
    _, mask = damage.damage(KEY, image, severity=2.0, kinds=("hairs",))
    _, more = damage.damage(KEY, image, severity=2.0, kinds=("hairs", "grain", "blur"))
    assert mask.any()
    np.testing.assert_array_equal(mask, more)


def test_what_lasts_is_the_clips_and_the_rest_the_frames():
    frames = jax.random.split(KEY, 2)

    def drawn(kind, clip):
        return [
            damage.damage(key, _image(), severity=2.0, kinds=(kind,), clip=clip)[0]
            for key in frames
        ]

    for kind in ("fading", "running_scratches"):
        one, two = drawn(kind, jax.random.key(5))
        other, _ = drawn(kind, jax.random.key(6))
        np.testing.assert_array_equal(one, two)
        assert np.abs(one - other).max() > 0.01
    for kind in ("flicker", "dust"):
        one, two = drawn(kind, jax.random.key(5))
        assert np.abs(one - two).max() > 0.01


def test_different_keys_draw_different_damage():
    kinds = ("hairs", "grain")
    one, two = (
        damage.damage(jax.random.key(seed), _image(), severity=1.0, kinds=kinds)[0]
        for seed in (0, 1)
    )
    assert np.abs(one - two).max() > 0.01


def test_denser_dirt_keeps_its_color():
    generator = np.random.default_rng(0)
    color = generator.uniform(0, 1, (8, 9, 3)).astype(np.float32)
    mask = generator.uniform(0, 1, (8, 9)).astype(np.float32)
    mask[:2] = 0
    dirt = mask[..., None] * color
    for same, given in zip(compose.denser(dirt, mask, 1.0), (dirt, mask), strict=True):
        np.testing.assert_array_equal(same, given)
    denser, opaque = compose.denser(dirt, mask, 3.0)
    np.testing.assert_allclose(opaque, np.minimum(3 * mask, 1), rtol=1e-6)
    np.testing.assert_allclose(denser, opaque[..., None] * color, atol=1e-6)


def test_opacity_does_not_change_the_covered_area():
    key, image = jax.random.key(4), jnp.full((64, 64, 3), 0.5)
    draw = jax.jit(
        lambda opacity: damage.damage(
            key, image, severity=6.0, kinds=("dust", "grain"), opacity=opacity
        )
    )
    (_, plain), (_, opaque), (bare, none) = (draw(x) for x in (1.0, 2.0, 0.0))
    np.testing.assert_allclose(opaque, np.minimum(2 * plain, 1), rtol=1e-6)
    assert plain.max() > 0 and not none.any()
    grain, _ = damage.damage(key, image, severity=6.0, kinds=("grain",))
    np.testing.assert_allclose(bare, grain, atol=1e-6)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="rain"):
        damage.damage(KEY, _image(), severity=1.0, kinds=("hairs", "rain"))


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [damage.FILM, damage.PHOTO], ids=["film", "photo"])
def test_damage_grows_with_severity(kinds):
    image = _image()
    errors, fractions = [], []
    for severity in (0.0, 0.1, 0.3, 1.0, 3.0):
        results = [
            _batch(kinds)(jax.random.split(jax.random.key(seed), 16), image, severity)
            for seed in range(4)
        ]
        errors.append(np.mean([(after - image) ** 2 for after, _ in results]))
        fractions.append(np.mean([mask > 0.05 for _, mask in results]))
    assert (np.diff(errors) > 0).all()
    assert (np.diff(fractions) > 0).all()


@pytest.mark.parametrize("shape", selection.slow_but([(7, 30)], [(1, 1), (7, 30)]))
def test_odd_shapes(shape):
    kinds = ("blur", "weave", "stains", "creases", "dust", "hairs", "grain", "jpeg")
    after, mask = jax.jit(damage.damage, static_argnames="kinds")(
        KEY, _grey(shape), severity=2.0, kinds=kinds
    )
    assert after.shape == (*shape, 3)
    assert mask.shape == shape


_SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from restoration import damage

assert len(jax.devices()) == 4
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
keys = jax.random.split(jax.random.key(3), 8)
images = jax.random.uniform(jax.random.key(4), (8, 48, 40, 3))
one = jax.devices()[0]
run = jax.jit(jax.vmap(lambda k, x: damage.damage(k, x, severity=1.5)))
alone = run(jax.device_put(keys, one), jax.device_put(images, one))
shard = NamedSharding(mesh, PartitionSpec("data"))
arguments = jax.device_put(keys, shard), jax.device_put(images, shard)
compiled = run.lower(*arguments).compile()
spread = compiled(*arguments)
assert spread[0].sharding.is_equivalent_to(shard, 4)
text = compiled.as_text()
for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
    assert word not in text, word
for a, b in zip(alone, spread):
    different = np.abs(np.asarray(a) - np.asarray(b)) > 1e-5
    assert different.mean() < 0.01, different.mean()
np.testing.assert_allclose(alone[1], spread[1], atol=1e-5)
"""


@pytest.mark.slow
def test_four_devices_draw_what_one_draws():
    done = subprocess.run(
        [sys.executable, "-c", _SHARDED],
        env={
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": ":".join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]


# --- Random numbers ----------------------------------------------------------


def test_random_words_are_uniform_and_independent():
    words = [
        np.asarray(fields.bits(key, (1 << 14,)))
        for key in (
            jax.random.key(0),
            jax.random.key(1),
            fields.split(jax.random.key(0), 2)[0],
            fields.split(jax.random.key(0), 2)[1],
        )
    ]
    # Each bit is set half of the time, independently of its neighbor's and the other's.
    ones = np.stack(
        [np.unpackbits(w.view(np.uint8).reshape(-1, 4), axis=1) for w in words]
    )
    signs = 2.0 * ones - 1
    limit = 5 / np.sqrt(1 << 14)
    assert np.abs(signs.mean(1)).max() < limit
    assert np.abs((signs[:, 1:] * signs[:, :-1]).mean(1)).max() < limit
    for i in range(4):
        for j in range(i):
            assert np.abs((signs[i] * signs[j]).mean(0)).max() < limit
    between = np.corrcoef(signs[0].T) - np.eye(32)
    assert np.abs(between).max() < limit


def test_white_noise_is_white():
    noise = np.asarray(fields.white_noise(KEY, (200, 300)))
    assert abs(noise.mean()) < 0.02
    assert abs(noise.var() - 1) < 0.02
    for rows, columns in ((0, 1), (1, 0), (1, 1)):
        shifted = np.roll(noise, (rows, columns), (0, 1))
        assert abs((noise * shifted).mean()) < 0.02


def test_smooth_noise_has_the_right_variance_and_size():
    noise = np.asarray(fields.smooth_noise(KEY, (400, 500), cells=(5.0, 10.0)))
    assert noise.shape == (2, 400, 500)
    np.testing.assert_allclose(noise.std((1, 2)), 1, atol=0.15)
    # Twice the cell, twice the correlation length.
    near = [(n[:, k:] * n[:, :-k]).mean() for n, k in zip(noise, (5, 10), strict=True)]
    assert abs(near[0] - near[1]) < 0.1


def test_count_is_rounded_at_random():
    chances = jnp.linspace(0, 1, 1001)[:-1]
    for expected in (0.0, 0.3, 2.75):
        numbers = jax.vmap(lambda c, e=expected: fields.count(c, e, 9).sum())(chances)
        np.testing.assert_allclose(numbers.mean(), expected, atol=2e-3)
    assert fields.count(jnp.asarray(0.9), 50.0, 9).sum() == 9


def test_spread_has_mean_one():
    factors = fields.spread(jnp.linspace(0, 1, 10001), octaves=2.0)
    np.testing.assert_allclose(factors.mean(), 1, rtol=1e-3)


# --- Exact effects that paint ------------------------------------------------


def test_paint_is_alpha_compositing():
    image = _image()
    rng = np.random.default_rng(0)
    opacity = rng.random((2, *SHAPE), np.float32)
    opacity[opacity < 0.1] = 0
    color = rng.random((2, 3), np.float32)
    after, mask = damage.paint(image, opacity=opacity, color=color)
    expected = np.asarray(image)
    for a, c in zip(opacity, color, strict=True):
        expected = expected * (1 - a[..., None]) + a[..., None] * c
    np.testing.assert_allclose(after, expected, atol=1e-6)
    np.testing.assert_allclose(mask, 1 - np.prod(1 - opacity, axis=0), atol=1e-6)


def test_vertical_scratch_is_antialiased():
    image = _grey()
    x = np.full((1, SHAPE[0]), 20.25, np.float32)
    opacity = np.linspace(0, 1, SHAPE[0], dtype=np.float32)[None]
    after, mask = damage.vertical_scratches(
        image,
        x=jnp.asarray(x),
        width=jnp.array([2.0]),
        opacity=jnp.asarray(opacity),
        layer=jnp.array([0]),
        color=jnp.array([[1.0, 0.5, 0.0]]),
    )
    # From 19.25 to 21.25: a quarter of pixel 19, 20 and 21's left three quarters.
    cover = np.zeros(SHAPE[1])
    cover[19:22] = 0.25, 1, 0.75
    np.testing.assert_allclose(mask, opacity.T * cover, atol=2e-3)
    np.testing.assert_allclose(after[-1, 20], [1.0, 0.5, 0.0], atol=1e-6)


def test_a_stroke_of_one_point_is_an_antialiased_disc():
    after, mask = damage.strokes(
        _grey(),
        points=jnp.array([[[30.3, 40.6]]]),
        width=jnp.array([[7.0]]),
        opacity=jnp.array([[0.8]]),
        layer=jnp.array([0]),
        color=jnp.array([[0.0, 0.0, 0.0]]),
        reach=4,
    )
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(rows - 30.3, columns - 40.6)
    np.testing.assert_allclose(mask, 0.8 * np.clip(4 - distance, 0, 1), atol=1e-5)
    np.testing.assert_allclose(mask.sum() / 0.8, np.pi * 3.5**2, rtol=0.01)
    np.testing.assert_allclose(after[30, 41], 0.1, atol=1e-6)


def test_a_stroke_follows_its_points():
    steps = np.linspace(0, 1, 60)[:, None]
    points = np.array([10.0, 5.0]) + steps * np.array([30.0, 50.0])
    _, mask = damage.strokes(
        _grey(),
        points=jnp.asarray(points, jnp.float32)[None],
        width=jnp.full((1, 60), 2.0),
        opacity=jnp.ones((1, 60)),
        layer=jnp.array([0]),
        color=jnp.ones((1, 3)),
        reach=2,
    )
    line = np.zeros(SHAPE)
    line[draw.line(10, 5, 40, 55)] = 1
    assert (np.asarray(mask)[line > 0] > 0.7).all()
    far = ndimage.distance_transform_edt(line == 0) > 3
    assert np.asarray(mask)[far].max() == 0


def test_discs_beyond_the_edge_are_cut_or_dropped():
    centres = jnp.array([[0.0, 0.0], [-50.0, 10.0], [1e6, 3.0], [55.0, 71.0]])
    drawn = fields.discs(
        SHAPE,
        layer=jnp.array([0, 0, 1, 1]),
        centre=centres,
        radius=jnp.full(4, 3.0),
        opacity=jnp.ones(4),
        layers=2,
        reach=3,
    )
    assert drawn.shape == (2, *SHAPE)
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    for layer, centre in ((0, (0, 0)), (1, (55, 71))):
        distance = np.hypot(rows - centre[0], columns - centre[1])
        np.testing.assert_allclose(
            drawn[layer], np.clip(3.5 - distance, 0, 1), atol=1e-5
        )


def test_specks_are_a_soft_threshold():
    noise = np.random.default_rng(1).normal(size=(1, *SHAPE)).astype(np.float32)
    after, mask = damage.specks(
        _grey(),
        noise=jnp.asarray(noise),
        threshold=jnp.full((1, *SHAPE), 1.0),
        softness=0.5,
        opacity=0.9,
        color=jnp.ones((1, 3)),
    )
    expected = 0.9 * np.clip((noise[0] - 1) / 0.5, 0, 1)
    expected[expected < 1 / 768] = 0
    np.testing.assert_allclose(mask, expected, atol=1e-6)
    np.testing.assert_allclose(after[..., 0], 0.5 + 0.5 * expected, atol=1e-6)


def test_one_ball_has_an_exact_edge():
    distance, values = fields.blobs(
        SHAPE,
        centre=jnp.array([[20.5, 30.0]]),
        radius=jnp.array([9.0]),
        values=jnp.array([[0.3]]),
    )
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    expected = 9 - np.hypot(rows - 20.5, columns - 30.0)
    near = np.abs(expected) < 20
    np.testing.assert_allclose(np.asarray(distance)[near], expected[near], atol=2e-3)
    np.testing.assert_allclose(np.asarray(values)[0][near], 0.3, atol=1e-4)
    assert (np.asarray(distance)[~near] < 0).all()


def test_blotch_has_the_right_area_and_rim():
    distance, _ = fields.blobs(
        SHAPE,
        centre=jnp.array([[27.0, 35.0]]),
        radius=jnp.array([15.0]),
        values=jnp.zeros((0, 1)),
    )
    _, mask = damage.blotches(
        _grey(),
        distance=distance[None],
        softness=1.0,
        opacity=jnp.full((1, *SHAPE), 0.4),
        color=jnp.zeros((1, 3)),
        rim=0.5,
        rim_width=2.0,
    )
    assert abs((np.asarray(mask) > 0.3).sum() - np.pi * 15**2) < 15
    np.testing.assert_allclose(mask[27, 35], 0.4, atol=1e-3)
    np.testing.assert_allclose(mask[27, 48], 0.4 * (1 + 0.5 * np.exp(-1)), atol=1e-3)


def test_cue_mark_is_an_ellipse_with_a_ring():
    after, mask = damage.cue_mark(
        _grey(),
        centre=jnp.array([20.0, 50.0]),
        radius=6.0,
        aspect=1.5,
        ring=2.0,
        opacity=1.0,
        color=jnp.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
    )
    outer = np.zeros(SHAPE)
    outer[draw.ellipse(20, 50, 6, 9)] = 1
    assert abs(mask.sum() - np.pi * 6 * 9) < 4
    np.testing.assert_allclose(mask[20, 50], 1)
    np.testing.assert_allclose(after[20, 50], 0, atol=1e-6)
    np.testing.assert_allclose(after[15, 50], 1, atol=1e-6)
    assert (
        np.asarray(mask)[ndimage.binary_dilation(outer, iterations=2) == 0] == 0
    ).all()


def test_crease_has_a_crack_and_a_shadow_on_one_side():
    columns = jnp.arange(SHAPE[1]) - 30.0
    distance = jnp.broadcast_to(columns, (1, *SHAPE))
    whole = jnp.ones((1, *SHAPE))
    after, mask = damage.creases(
        _grey(),
        distance=distance,
        width=3 * whole,
        opacity=whole,
        shadow=0.5 * whole,
        shadow_width=jnp.array([4.0]),
        color=jnp.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]),
    )
    np.testing.assert_allclose(after[5, 29:32], 1, atol=1e-6)
    shadow = 0.5 * np.exp(-np.arange(2, 20) / 4)
    np.testing.assert_allclose(mask[5, 32:50], shadow, atol=1e-6)
    np.testing.assert_allclose(after[5, 32:50, 0], 0.5 * (1 - shadow), atol=1e-6)
    assert not mask[:, :28].any()


def test_missing_part_shows_the_background_and_a_rim():
    distance = jnp.broadcast_to(20.0 - jnp.arange(SHAPE[1]), SHAPE)
    after, mask = damage.missing(
        _grey(),
        distance=distance,
        rim=jnp.full(SHAPE, 3.0),
        color=jnp.array([[1.0, 1.0, 1.0], [0.1, 0.2, 0.3]]),
    )
    np.testing.assert_allclose(after[3, :20], [[0.1, 0.2, 0.3]] * 20, atol=1e-6)
    # Pixel 20 is on the tear, pixel 23 on the edge of the rim.
    np.testing.assert_allclose(after[3, 21:24, 0], [1, 1, 0.75], atol=1e-6)
    np.testing.assert_allclose(after[3, 24:], 0.5)
    assert not mask[:, 24:].any()


# --- Exact effects on the whole image ----------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.3, (0.6, 1.7)])
def test_blur_against_scipy(sigma):
    image = np.asarray(_image())
    pair = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    expected = image
    for axis, one in enumerate(pair):
        if one:
            expected = ndimage.gaussian_filter1d(
                expected, one, axis=axis, mode="nearest", radius=6
            )
    after = damage.blur(image, sigma=sigma, radius=6)
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_fading_maps_black_white_and_grey():
    ramp = jnp.stack([jnp.array([[0.0] * 3, [1.0] * 3, [0.8, 0.2, 0.4]])])
    after = damage.fading(ramp, black=0.1, white=0.7, saturation=0.0)
    luma = 0.299 * 0.8 + 0.587 * 0.2 + 0.114 * 0.4
    expected = 0.1 + 0.6 * np.array([0, 1, luma])
    np.testing.assert_allclose(after[0], expected[:, None] * np.ones(3), atol=1e-6)


def test_cast_is_gain_times_power():
    image = _image()
    gain, gamma = np.array([0.9, 0.8, 0.6]), np.array([1.2, 1.0, 0.7])
    after = damage.cast(image, gain=jnp.asarray(gain), gamma=jnp.asarray(gamma))
    expected = gain * np.asarray(image, np.float64) ** gamma
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_contrast_keeps_the_pivot():
    image = _image()
    after = damage.contrast(image, factor=0.6, pivot=0.4)
    np.testing.assert_allclose(after, 0.4 + 0.6 * (image - 0.4), atol=1e-6)


def test_flicker_multiplies():
    gain = jnp.linspace(0.5, 1.5, SHAPE[1]) * jnp.ones(SHAPE)
    after = damage.flicker(_image(), gain=gain)
    np.testing.assert_allclose(
        after, np.clip(_image() * gain[..., None], 0, 1), atol=1e-6
    )


def test_weave_against_scipy():
    image = np.asarray(_image())
    for down, right in ((0.3, -1.25), (-2.0, 3.0), (0.0, 0.0)):
        expected = ndimage.shift(image, (down, right, 0), order=1, mode="nearest")
        after = damage.weave(image, down=down, right=right)
        np.testing.assert_allclose(after, expected, atol=1e-5)
    rows = jnp.linspace(-1, 1, SHAPE[0])
    after = damage.weave(image, down=0.0, right=rows)
    expected = ndimage.shift(image[10], (float(rows[10]), 0), order=1, mode="nearest")
    np.testing.assert_allclose(after[10], expected, atol=1e-5)


def test_grain_follows_luminance():
    levels = np.array([0.1, 0.3, 0.5, 0.7, 0.9], np.float32)
    noise = damage.grain_noise(KEY, (200, 200), sigma=0.6, chroma=0.2)
    for level in levels:
        after = damage.grain(
            _grey((200, 200), level), noise=noise, strength=0.03, floor=0.4
        )
        expected = 0.03 * (0.4 + 0.6 * 4 * level * (1 - level))
        np.testing.assert_allclose((after - level).std(), expected, rtol=0.03)


@pytest.mark.parametrize("sigma", [0.5, 1.2])
def test_grain_noise_has_the_right_correlations(sigma):
    noise = np.asarray(damage.grain_noise(KEY, (300, 300), sigma=sigma, chroma=0.25))
    np.testing.assert_allclose(noise.std((0, 1)), 1, atol=0.03)
    colors = np.corrcoef(noise.reshape(-1, 3).T)
    np.testing.assert_allclose(colors[np.triu_indices(3, 1)], 0.75, atol=0.03)
    # The weights of the filter, correlated with themselves.
    weights = np.exp(-0.5 * (np.arange(-4, 5) / sigma) ** 2)
    full = np.correlate(weights, weights, "full")
    for lag in (1, 2, 3):
        for axis in (0, 1):
            a, b = np.split(noise, [lag], axis)[1], np.split(noise, [-lag], axis)[0]
            expected = full[len(weights) - 1 + lag] / full[len(weights) - 1]
            np.testing.assert_allclose((a * b).mean(), expected, atol=0.03)
    skewness = (noise**3).mean()
    kurtosis = (noise**4).mean()
    assert abs(skewness) < 0.05 and abs(kurtosis - 3) < 0.35


@pytest.mark.parametrize("quality", [10, 50, 85])
def test_jpeg_against_a_dct(quality):
    image = np.asarray(_image())
    after = damage.jpeg(image, quality=quality, subsample=False)
    # Pillow writes libjpeg's tables for a quality.
    buffer = io.BytesIO()
    Image.fromarray((image * 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=quality, subsampling=0
    )
    tables = Image.open(buffer).quantization
    red, green, blue = np.moveaxis(image.astype(np.float64) * 255, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [luma - 128, (blue - luma) / 1.772, (red - luma) / 1.402]
    for index, plane in enumerate(planes):
        table = np.array(tables[min(index, 1)]).reshape(8, 8)
        blocks = plane.reshape(SHAPE[0] // 8, 8, SHAPE[1] // 8, 8)
        coefficients = fft.dctn(blocks, axes=(1, 3), norm="ortho")
        table = table[None, :, None, :]
        coefficients = np.round(coefficients / table) * table
        planes[index] = fft.idctn(coefficients, axes=(1, 3), norm="ortho").reshape(
            SHAPE
        )
    luma = planes[0] + 128
    red, blue = luma + 1.402 * planes[2], luma + 1.772 * planes[1]
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    expected = np.clip(np.stack([red, green, blue], -1) / 255, 0, 1)
    # A coefficient near a half may be rounded either way.
    assert np.isclose(after, expected, atol=1e-3).mean() > 0.97


@pytest.mark.parametrize("quality", [20, 75])
@pytest.mark.parametrize("subsample", [False, True])
def test_jpeg_is_close_to_pillows(quality, subsample):
    image = data.astronaut()[:131, 100:237]
    after = damage.jpeg(
        jnp.asarray(image, jnp.float32) / 255, quality=quality, subsample=subsample
    )
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, "JPEG", quality=quality, subsampling=2 if subsample else 0
    )
    decoded = np.asarray(Image.open(buffer).convert("RGB"))

    def psnr(a, b):
        return -10 * np.log10(np.mean((np.asarray(a) - np.asarray(b)) ** 2))

    # libjpeg interpolates subsampled colors; ours repeats them.
    between = psnr(after, decoded / 255)
    assert between > psnr(image / 255, decoded / 255) + (3 if subsample else 10)
