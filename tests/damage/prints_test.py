"""Damage of prints: what all kinds promise, and what cracks look like."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from restoration.damage import prints

SHAPE = (72, 88)
KEYS = jax.random.split(jax.random.key(11), 10)

random_kind = pytest.mark.parametrize("name", prints.KINDS)


def _image(shape=SHAPE):
    image = data.astronaut()[20 : 20 + shape[0], 150 : 150 + shape[1]]
    return jnp.asarray(image, jnp.float32) / 255


def _grey(shape=SHAPE, value=0.5):
    return jnp.full((*shape, 3), value, jnp.float32)


@functools.cache
def _draw(name):
    """Returns a kind, compiled; compiling is what these tests spend their time on."""
    kind = prints.KINDS[name]
    return jax.jit(lambda key, image, severity: kind(key, image, severity=severity))


def _several(name, image, severity, keys=KEYS):
    """Returns the pictures and the masks of several keys."""
    results = [_draw(name)(key, image, severity) for key in keys]
    return tuple(np.stack(parts) for parts in zip(*results, strict=True))


# --- What all kinds promise -------------------------------------------------


@random_kind
def test_signature_is_key_image_severity(name):
    parameters = inspect.signature(prints.KINDS[name]).parameters
    assert list(parameters) == ["key", "image", "severity"]
    assert parameters["severity"].kind is inspect.Parameter.KEYWORD_ONLY
    assert prints.KINDS[name].__name__ == f"random_{name}"


def test_every_kind_has_a_chance():
    assert set(prints.CHANCE) == set(prints.KINDS)
    assert all(0 < chance < 1 for chance in prints.CHANCE.values())
    assert set(prints.LAYERED) < set(prints.PRINT)


@random_kind
def test_severity_zero_and_below_change_no_bit(name):
    image = _image()
    for severity in (0.0, -1.0, float("nan")):
        after, mask = _several(name, image, severity, KEYS[:4])
        np.testing.assert_array_equal(after, np.stack([image] * 4))
        assert not mask.any()


@random_kind
def test_stays_finite_and_in_range(name):
    for severity in (0.5, 10.0, float("inf")):
        for image in (_image(), _grey(value=0.0), _grey(value=1.0)):
            for array in _several(name, image, severity, KEYS[:4]):
                assert array.dtype == np.float32
                assert np.isfinite(array).all()
                assert array.min() >= 0 and array.max() <= 1


@random_kind
def test_mask_tells_where_the_picture_changed(name):
    after, mask = _several(name, _grey(value=0.25), 3.0)
    changed = np.abs(after - 0.25).max(-1)
    assert mask.max() > 0.15
    assert changed[mask == 0].max(initial=0) == 0
    assert (changed <= mask * 0.75 + 1e-6).all()
    assert (changed[mask > 0.1] > 0).mean() > 0.95


@random_kind
def test_share_of_the_picture_is_plausible(name):
    """None covers the picture, and none of them is invisible."""
    _, mask = _several(name, _grey(value=0.1), 1.0)
    share = (mask > 0.1).mean((1, 2))
    assert 5e-4 < share.mean() < 0.35
    # Another key, another amount.
    assert len(set(share.round(4))) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", prints.LAYERED)
def test_what_is_drawn_on_black_can_be_laid_over_any_picture(name):
    image = _image()
    painted, mask = _several(name, image, 2.0, KEYS[:4])
    dirt, same = _several(name, jnp.zeros_like(image), 2.0, KEYS[:4])
    np.testing.assert_array_equal(mask, same)
    laid = np.asarray(image) * (1 - mask[..., None]) + dirt
    np.testing.assert_allclose(painted, laid, atol=1e-6)


@pytest.mark.slow
def test_eager_jit_and_vmap_draw_the_same():
    image, name = _image(), "foxing"
    kind = functools.partial(prints.KINDS[name], severity=3.0)
    eager = kind(KEYS[3], image)
    alone = _draw(name)(KEYS[3], image, 3.0)
    batch = jax.jit(jax.vmap(kind, in_axes=(0, None)))(KEYS, image)
    for one, two, three in zip(eager, alone, batch, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)
        np.testing.assert_allclose(one, three[3], atol=2e-5)
    for one, two in zip(alone, _draw(name)(KEYS[3], image, 3.0), strict=True):
        np.testing.assert_array_equal(one, two)


# --- All of them --------------------------------------------------------------

FEW = ("foxing", "tears", "worn_edges")


@pytest.fixture(scope="module")
def damaged():
    return jax.jit(
        lambda key, image, severity: prints.random_print_damage(
            key, image, severity=severity, kinds=FEW
        )
    )


@pytest.mark.slow
def test_prints_differ_in_what_befalls_them(damaged):
    image = _image()
    after, mask = damaged(KEYS[0], image, 0.0)
    np.testing.assert_array_equal(after, image)
    assert not mask.any()
    shares = [
        [float((damaged(key, image, severity)[1] > 0.1).mean()) for key in KEYS]
        for severity in (0.3, 1.0, 4.0)
    ]
    assert (np.diff(np.mean(shares, axis=1)) > 0).all()
    # Some escape at a low severity, hardly one at a high one.
    assert min(shares[0]) == 0
    assert np.count_nonzero(shares[2]) > np.count_nonzero(shares[0])


@pytest.mark.slow
def test_a_layer_is_the_same_damage_on_black():
    image = _image()
    kinds = FEW[:1]
    layer = jax.jit(
        lambda key: prints.random_print_layer(key, SHAPE, severity=2.0, kinds=kinds)
    )
    whole = jax.jit(
        lambda key: prints.random_print_damage(key, image, severity=2.0, kinds=kinds)
    )
    for key in KEYS[:5]:
        painted, mask = whole(key)
        dirt, same = layer(key)
        np.testing.assert_allclose(mask, same, atol=1e-6)
        laid = np.asarray(image) * (1 - mask[..., None]) + dirt
        np.testing.assert_allclose(painted, laid, atol=1e-6)


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match="rain"):
        prints.random_print_damage(
            KEYS[0], _image(), severity=1.0, kinds=("folds", "rain")
        )


# --- What they look like -------------------------------------------------------


def _lines(name, shape, keys, severity=3.0):
    _, masks = _several(name, _grey(shape, 0.1), severity, keys)
    return masks > 0.35


@pytest.mark.parametrize("name", ["cracks", "long_cracks", "craquelure"])
def test_cracks_are_thin(name):
    lines = _lines(name, SHAPE, KEYS)
    assert lines.any()
    # Half of the width, along all that was drawn.
    half = np.concatenate(
        [
            ndimage.distance_transform_edt(np.pad(one, 1))[1:-1, 1:-1][one]
            for one in lines
        ]
    )
    assert half.mean() < 2.5
    assert np.quantile(half, 0.99) < 5


def test_long_cracks_are_connected_and_cross_the_picture():
    lines = [one for one in _lines("long_cracks", SHAPE, KEYS) if one.sum() > 60]
    assert len(lines) >= 4
    crossing = []
    for one in lines:
        labels, _ = ndimage.label(one, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:]
        # Most of what is drawn hangs together.
        assert sizes.max() > 0.3 * one.sum()
        box = ndimage.find_objects(labels)[int(sizes.argmax())]
        crossing.append(
            max(
                (part.stop - part.start) / side
                for part, side in zip(box, SHAPE, strict=True)
            )
        )
    assert np.median(crossing) > 0.5


def test_lengths_grow_with_the_picture():
    """A scan with twice as many pixels shows the same mould twice as wide."""
    widths = []
    for side in (512, 1024):
        drops = _lines("mould", (side, side), KEYS[:4])
        half = [ndimage.distance_transform_edt(one)[one] for one in drops]
        widths.append(np.concatenate(half).mean())
    assert 1.5 < widths[1] / widths[0] < 2.7


def test_silver_shines_where_the_picture_is_dark():
    _, dark = _several("silvering", _grey(value=0.05), 3.0)
    _, bright = _several("silvering", _grey(value=0.8), 3.0)
    assert dark.mean() > 0.01
    assert not bright.any()


def test_worn_edges_leave_the_middle_alone():
    shape = (128, 128)
    _, masks = _several("worn_edges", _grey(shape), 1.0, KEYS[:6])
    border = np.ones(shape, bool)
    border[12:-12, 12:-12] = False
    assert masks[:, border].mean() > 5 * masks[:, 56:72, 56:72].mean()
