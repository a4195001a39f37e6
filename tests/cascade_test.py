"""The cascade of a coarse and a fine network: its parts, and in tiles."""

import functools

import jax
import numpy as np
import pytest

from experiments import join_cascade
from restoration import errors, models, pretrained, tiling
from restoration.models import cascade, nafnet


def random_parameters(model, seed=0):
    """Weights of which none is zero, so that every part has its effect."""
    generator = np.random.default_rng(seed)

    def drawn(path, leaf):
        name = path[-1].key
        noise = generator.standard_normal(leaf.shape).astype(np.float32)
        if name == "scale":
            return 1 + 0.1 * noise
        if name in ("beta", "gamma", "bias"):
            return 0.2 * noise
        return noise / np.sqrt(np.prod(leaf.shape[:-1]))

    like = models.abstract_parameters(model)
    return jax.tree_util.tree_map_with_path(drawn, like)


def test_shrunk_squares_are_means():
    images = np.random.default_rng(1).random((2, 8, 12, 3), np.float32)
    small = cascade.shrunk(images, 4)
    assert small.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(
        small[1, 0, 2], images[1, :4, 8:].mean((0, 1)), atol=1e-6
    )
    np.testing.assert_array_equal(cascade.shrunk(images, 1), images)


@pytest.mark.parametrize("side", [2, 4])
def test_enlarged_is_linear_between_the_middles(side):
    images = np.random.default_rng(2).random((2, 5, 7, 3), np.float32)
    size = (2, 5 * side, 7 * side, 3)
    expected = jax.image.resize(images, size, "linear")
    np.testing.assert_allclose(cascade.enlarged(images, side), expected, atol=1e-6)


def test_what_all_views_would_change_is_changed_as_far_as_all_would():
    """A network that changes by what lies in the corner of its view, a known amount."""
    amounts = np.float32([[0.1, 0.2], [0.3, 0.4]])
    images = np.zeros((2, 4, 4, 1), np.float32)
    images[0, ::3, ::3, 0] = amounts
    images[1, ::3, ::3, 0] = amounts - 0.15

    def network(views):
        return views + views[:, :1, :1]

    change = np.asarray(cascade.agreed_change(network, images))
    np.testing.assert_allclose(change[0], 0.1, atol=1e-6)
    np.testing.assert_array_equal(change[1], 0)
    change = np.asarray(cascade.agreed_change(network, -images))
    np.testing.assert_allclose(change[0], -0.1, atol=1e-6)


def test_the_same_in_all_views_whatever_the_shape():
    """What does not depend on how a picture lies is changed whole."""
    images = np.random.default_rng(3).random((1, 8, 12, 3), np.float32)
    change = np.asarray(cascade.agreed_change(lambda views: views**2, images))
    np.testing.assert_allclose(change, images**2 - images, atol=1e-6)


@pytest.fixture(scope="module")
def model():
    return cascade.Cascade(width=4)


def test_equals_its_parts(model, photographs):
    """What the coarse network would always change is added, then the fine one runs."""
    parameters, network = random_parameters(model), nafnet.NAFNet(width=4)
    image = photographs["chelsea"][None, :64, :96]
    small = image.reshape(1, 16, 4, 24, 4, 3).mean((2, 4))

    def restored(name, images):
        return np.asarray(network.apply({"params": parameters["params"][name]}, images))

    changes = []
    for turns in range(4):
        for mirrored in (False, True):
            view = np.rot90(small[:, :, ::-1] if mirrored else small, turns, (1, 2))
            change = np.rot90(restored("coarse", view) - view, -turns, (1, 2))
            changes.append(change[:, :, ::-1] if mirrored else change)
    changes = np.stack(changes)
    same = np.abs(np.sign(changes).sum(0)) == 8
    assert 0.02 < same.mean() < 0.9
    least = np.abs(changes).min(0) * same * np.sign(changes[0])
    given = image + jax.image.resize(least, image.shape, "linear")
    np.testing.assert_allclose(
        model.apply(parameters, image), restored("fine", given), atol=1e-4
    )
    assert np.abs(given - image).max() > 0.01


def test_untrained_network_changes_nothing(model, photographs):
    image = photographs["chelsea"][None, :40, :56]
    parameters = jax.jit(model.init)(jax.random.key(0), image)
    np.testing.assert_array_equal(jax.jit(model.apply)(parameters, image), image)


def test_trimmed_results_lack_what_only_the_coarse_network_looked_at(
    model, photographs
):
    trimmed, outer = tiling.trimmed(model)
    assert outer % model.multiple == 0
    assert tiling.trimmed(nafnet.NAFNet(width=4))[1] == 0
    parameters = random_parameters(model)
    side = 2 * outer + 256
    image = np.resize(photographs["astronaut"][:300, :300], (1, side, side, 3))
    whole = jax.jit(model.apply)(parameters, image)
    inner = jax.jit(trimmed.apply)(parameters, image)
    assert inner.shape == (1, 256, 256, 3)
    # The fine network has seen too little of the border of what is left.
    seen = slice(120, 136)
    middle = slice(outer + 120, outer + 136)
    np.testing.assert_allclose(
        inner[:, seen, seen], whole[:, middle, middle], atol=1e-5
    )


@pytest.mark.parametrize("keep_color", [False, True])
def test_tiles_equal_the_whole(keep_color, model, photographs):
    parameters = random_parameters(model)
    image = photographs["astronaut"][:190, :230]
    whole = jax.jit(functools.partial(tiling.restore_whole, model))
    whole = np.asarray(whole(parameters, image[None]))[0]
    if keep_color:
        whole = np.clip(tiling.keeping_color(image[None], whole[None])[0], 0, 1)
    assert np.abs(whole - image).max() > 0.05
    for tile in (1280, 1312):
        grid = tiling.make_grid(model, tile=(tile, tile), keep_color=keep_color)
        compute = tiling.make_compute(model, grid, keep_color=keep_color)
        rows = tiling.restore_strips(
            functools.partial(compute, parameters), [image], grid, image.shape[:2]
        )
        tiled = np.concatenate(list(rows))
        # Beyond a picture's border its tone is taken another way.
        inner = slice(64, -64) if keep_color else slice(None)
        assert np.abs(tiled - whole)[inner, inner].max() < 1e-4


def test_two_files_become_one(tmp_path):
    like = models.abstract_parameters(models.get_model("nafnet_s"))
    given = {}
    for number, name in enumerate(cascade.PARTS):
        weights = jax.tree.map(lambda leaf, n=number: np.full(leaf.shape, n), like)
        given[name] = str(tmp_path / f"{name}.safetensors")
        card = {"command": f"made {name}", "figures": {"psnr": 1.0}, "limits": name}
        pretrained.save(given[name], "nafnet_s", weights, card)
    out = tmp_path / "out" / "cascade_s.safetensors"
    options = join_cascade.JoinOptions(**given, out=str(out))
    assert join_cascade.write(options) == out
    name, parameters = pretrained.load(out)
    assert name == "cascade_s"
    for number, part in enumerate(cascade.PARTS):
        leaves = jax.tree.leaves(parameters["params"][part])
        assert {float(leaf.flat[0]) for leaf in leaves} == {number}
    card = pretrained.read_card(out.with_suffix(".json"))
    assert card["networks"]["coarse"]["command"] == "made coarse"
    assert "--fine=fine.safetensors" in card["command"] and card["limits"] == "fine"
    with pytest.raises(errors.InputError, match="is there already"):
        join_cascade.write(options)
    with pytest.raises(errors.InputError, match="are required"):
        join_cascade.JoinOptions(fine=given["fine"])
