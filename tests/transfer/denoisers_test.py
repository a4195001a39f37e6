"""Published denoisers: read from every format, and computed as their papers say."""

import itertools
import os
import pathlib

import h5py
import jax
import numpy as np
import pytest
import safetensors.numpy
from scipy import io

from experiments.transfer import denoisers, ffdnet
from restoration import models
from restoration.base import errors

# Where the published files and the pictures they were measured on lie, for a check
# that takes minutes: PSNR at σ 25 by file, dB, in FOLDER/README or below.
WEIGHTS, PICTURES = "DENOISER_WEIGHTS", "DENOISER_PICTURES"
PUBLISHED = {
    "kair_dncnn_25.safetensors": 30.78,
    "saoyan_dncnn_b.safetensors": 30.72,
    "cszn_dncnn3_grey.safetensors": 30.61,
    "cszn_dncnn_color_blind.safetensors": 32.36,
    "GD_Color_Blind.mat": 32.36,
    "cszn_ffdnet_color.safetensors": 32.74,
}


def random_layers(depth, inputs, width, outputs, seed=0):
    """(kernel, bias) of each convolution, kernels (out, in, height, width)."""
    generator = np.random.default_rng(seed)
    channels = [inputs, *[width] * (depth - 1), outputs]
    return [
        (
            generator.normal(0, (2 / 9 / before) ** 0.5, (after, before, 3, 3)),
            generator.normal(0, 0.1, after),
        )
        for before, after in itertools.pairwise(channels)
    ]


def convolved(image, kernel, bias):
    """Correlation with zeros around: image (h, w, in), kernel (out, in, 3, 3)."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    return np.einsum("hwcij,ocij->hwo", windows, kernel, optimize=True) + bias


def plain_network(image, layers):
    for number, layer in enumerate(layers, 1):
        image = convolved(image, *layer)
        image = np.maximum(image, 0) if number < len(layers) else image
    return image


def write_safetensors(path, layers, prefix="layers", first=0):
    tensors = {}
    for number, (kernel, bias) in enumerate(layers):
        layer = f"{prefix}.{first + 2 * number}"
        tensors[f"{layer}.weight"] = np.ascontiguousarray(kernel, np.float32)
        tensors[f"{layer}.bias"] = np.asarray(bias, np.float32)
    safetensors.numpy.save_file(tensors, path)


def matlab_kernel(kernel):
    """Returns a kernel as MATLAB stores it, which drops a last dimension of 1."""
    kernel = np.float32(kernel.transpose(2, 3, 1, 0))
    return kernel[..., 0] if kernel.shape[3] == 1 else kernel


def write_old_matlab(path, layers):
    cells = np.empty((1, 2 * len(layers) - 1), object)
    for number, (kernel, bias) in enumerate(layers):
        weights = np.empty((1, 2), object)
        weights[0] = matlab_kernel(kernel), np.float32(bias)[:, None]
        cells[0, 2 * number] = {"type": "conv", "weights": weights, "pad": 1}
        if number:
            cells[0, 2 * number - 1] = {"type": "relu", "leak": 0}
    io.savemat(path, {"net": {"layers": cells, "meta": "none"}})


def write_new_matlab(path, layers):
    """HDF5, as MATLAB lays it out: cells are references, dimensions reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        kept = file.create_group("#refs#")
        references = []
        for number, (kernel, bias) in enumerate(layers):
            layer = kept.create_group(f"layer_{number}")
            weights = [matlab_kernel(kernel), np.float32(bias)[:, None]]
            parts = [
                kept.create_dataset(f"{number}_{part}", data=values.T).ref
                for part, values in enumerate(weights)
            ]
            parts = np.array(parts, h5py.ref_dtype)[:, None]
            layer.create_dataset("weights", data=parts)
            references.append(layer.ref)
            relu = kept.create_group(f"relu_{number}")
            relu.create_dataset("leak", data=[[0.0]])
            references.append(relu.ref)
        references = np.array(references[:-1], h5py.ref_dtype)[:, None]
        file.create_dataset("net/layers", data=references)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: none")


WRITERS = {
    "a.safetensors": write_safetensors,
    "old.mat": write_old_matlab,
    "new.mat": write_new_matlab,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("depth", "channels"), [(20, 3), (20, 1), (17, 1)])
def test_dncnn_of_every_format_removes_noise(name, depth, channels, tmp_path):
    layers = random_layers(depth, channels, 64, channels)
    WRITERS[name](tmp_path / name, layers)
    model, parameters = denoisers.load(tmp_path / name)
    assert model.layers == model.halo == depth
    image = np.random.default_rng(1).random((9, 7, channels))
    expected = image - plain_network(image, layers)
    found = jax.jit(model.apply)(parameters, np.float32(image)[None])[0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_color_network_is_the_model_dncnn(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", random_layers(20, 3, 64, 3))
    model, parameters = denoisers.load(tmp_path / "a.safetensors")
    ours = models.get_model("dncnn")
    assert model == ours
    assert jax.tree.map(np.shape, parameters) == jax.tree.map(
        np.shape, models.abstract_parameters(ours)
    )


def test_batch_normalization_is_folded_into_the_convolution(tmp_path):
    """Against the network with the normalisations written out."""
    layers, generator = random_layers(20, 1, 64, 1), np.random.default_rng(2)
    norms, tensors, index = {}, {}, 0
    for number, (kernel, _) in enumerate(layers):
        tensors[f"module.dncnn.{index}.weight"] = np.float32(kernel)
        if 0 < number < 19:
            norms[number] = {
                "weight": generator.uniform(0.5, 1.5, 64),
                "bias": generator.normal(0, 0.1, 64),
                "running_mean": generator.normal(0, 0.1, 64),
                "running_var": generator.uniform(0.5, 1.5, 64),
            }
            index += 1
            tensors |= {
                f"module.dncnn.{index}.{key}": np.float32(values)
                for key, values in norms[number].items()
            }
        index += 2
    safetensors.numpy.save_file(tensors, tmp_path / "b.safetensors")

    image = x = generator.random((8, 8, 1))
    for number, (kernel, _) in enumerate(layers):
        x = convolved(x, kernel, 0)
        if number in norms:
            norm = norms[number]
            x = (x - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5)
            x = x * norm["weight"] + norm["bias"]
        x = np.maximum(x, 0) if number < 19 else x
    model, parameters = denoisers.load(tmp_path / "b.safetensors")
    found = jax.jit(model.apply)(parameters, np.float32(image)[None])[0]
    np.testing.assert_allclose(found, image - x, atol=1e-4 * np.abs(x).max())


def test_ffdnet_equals_its_description(tmp_path):
    """Sub-images (0,0), (1,0), (0,1), (1,1) color by color, and the noise's map."""
    layers = random_layers(12, 13, 96, 12)
    write_safetensors(tmp_path / "f.safetensors", layers, first=2)
    model, parameters = denoisers.load(tmp_path / "f.safetensors", sigma=0.1)
    image = np.random.default_rng(1).random((8, 6, 3))
    offsets = [(0, 0), (1, 0), (0, 1), (1, 1)]
    folded = [image[r::2, c::2, k] for k in range(3) for r, c in offsets]
    x = plain_network(np.stack([*folded, np.full((4, 3), 0.1)], -1), layers)
    expected = np.empty_like(image)
    for channel in range(12):
        row, column = offsets[channel % 4]
        expected[row::2, column::2, channel // 4] = x[..., channel]
    found = jax.jit(model.apply)(parameters, np.float32(image)[None])[0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_size_and_halo_of_ffdnet():
    model = ffdnet.FFDNet(sigma=0.1)
    parameters = models.abstract_parameters(model)
    assert models.count_parameters(parameters) == 852_108
    assert models.receptive_field(model)[1] == model.halo


def test_unfold_inverts_fold_and_odd_sizes_are_kept():
    images = np.random.default_rng(0).random((2, 4, 6, 3), np.float32)
    np.testing.assert_array_equal(ffdnet.unfold(ffdnet.fold(images)), images)
    model = ffdnet.FFDNet(sigma=0.1)
    odd = images[:, :3, :5]
    restored, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), odd)
    assert restored.shape == odd.shape


def refused(path, message, **options):
    with pytest.raises(errors.InputError, match=message):
        denoisers.load(path, **options)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    refused(path, "no such file")
    refused(tmp_path / "a.pth", "can run code")
    path.write_bytes(b"nothing")
    refused(path, "not a safetensors file")
    write_safetensors(path, random_layers(5, 3, 8, 3))
    refused(path, r"5 convolutions, the first \(3, 3, 3, 8\)")
    write_safetensors(path, [*random_layers(1, 3, 8, 8), *random_layers(1, 9, 8, 8)])
    refused(path, "gives 8 channels, the next takes 9")
    safetensors.numpy.save_file({"a.weight": np.zeros((1, 1, 3, 3), "f4")}, path)
    refused(path, "not a numbered layer")
    safetensors.numpy.save_file({"a.0.gamma": np.zeros(3, "f4")}, path)
    refused(path, "neither a convolution nor")
    safetensors.numpy.save_file({"a.0.weight": np.zeros((3, 3), "f4")}, path)
    refused(path, "is not a convolution")
    layers = random_layers(20, 3, 64, 3)
    layers[4][0][0, 0, 0, 0] = np.inf
    write_safetensors(path, layers)
    refused(path, "not finite")


def test_only_ffdnet_needs_sigma(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, random_layers(12, 13, 96, 12))
    refused(path, "give its sigma")
    write_safetensors(path, random_layers(20, 3, 64, 3))
    refused(path, "takes no sigma", sigma=0.1)


@pytest.mark.parametrize("name", ["old.mat", "new.mat"])
def test_other_matlab_files_are_refused(name, tmp_path):
    path = tmp_path / name
    if name == "old.mat":
        io.savemat(path, {"other": np.ones(3)})
    else:
        with h5py.File(path, "w", userblock_size=512) as file:
            file["other"] = np.ones(3)
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file")
    refused(path, "not a network of MatConvNet")
    path.write_bytes(path.read_bytes()[:140])
    refused(path, "not a network of MatConvNet")
    path.write_bytes(b"")
    refused(path, "not a network of MatConvNet")


@pytest.mark.skipif(
    not (os.environ.get(WEIGHTS) and os.environ.get(PICTURES)),
    reason=f"takes minutes; set {WEIGHTS} and {PICTURES} to the folders",
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_reach_the_published_score(name):
    from experiments.transfer import reproduce

    path = pathlib.Path(os.environ[WEIGHTS]) / name
    options = reproduce.ReproduceOptions(
        pictures=(os.environ[PICTURES],), weights=(str(path),)
    )
    (found,) = reproduce.measure_published(str(path), options)["psnr"].values()
    assert found["psnr"] == pytest.approx(PUBLISHED[name], abs=0.02)
