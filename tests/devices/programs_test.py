"""Traced programs on disk: the same bits, traced once, mended when damaged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration.devices import backend, programs

PARAMETERS = {"kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}
INPUTS = np.random.default_rng(0).random((5, 3), np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "program_folder", lambda: tmp_path / "traced")
    return tmp_path / "traced"


def network(traces):
    """Returns a jitted network that counts how often it is traced."""

    @jax.jit
    def apply(parameters, inputs):
        traces.append(inputs.shape)
        return jnp.tanh(inputs @ parameters["kernel"])

    return apply


def test_a_program_is_traced_once_and_gives_the_same_bits(folder):
    expected = network([])(PARAMETERS, INPUTS)
    for already in (False, True):
        traces = []
        program = programs.traced(network(traces), "n", PARAMETERS, INPUTS)
        np.testing.assert_array_equal(program(PARAMETERS, INPUTS), expected)
        assert bool(traces) != already
    assert len(list(folder.iterdir())) == 1


def test_another_name_or_shape_is_another_program(folder):
    for name, inputs in (("n", INPUTS), ("m", INPUTS), ("n", INPUTS[:2])):
        traces = []
        programs.traced(network(traces), name, PARAMETERS, inputs)
        assert traces
    assert len(list(folder.iterdir())) == 3


def test_other_code_is_another_program(folder, monkeypatch):
    programs.traced(network([]), "n", PARAMETERS, INPUTS)
    monkeypatch.setattr(programs, "_code", lambda: "another")
    traces = []
    programs.traced(network(traces), "n", PARAMETERS, INPUTS)
    assert traces


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_a_damaged_program_is_traced_again(folder, damage):
    programs.traced(network([]), "n", PARAMETERS, INPUTS)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage + whole[len(damage) + 1 :])
    traces = []
    program = programs.traced(network(traces), "n", PARAMETERS, INPUTS)
    assert traces and program(PARAMETERS, INPUTS).shape == (5, 4)
    again = []
    programs.traced(network(again), "n", PARAMETERS, INPUTS)
    assert not again


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "traced").write_text("a file in the folder's place")
    monkeypatch.setattr(backend, "program_folder", lambda: tmp_path / "traced")
    program = programs.traced(network([]), "n", PARAMETERS, INPUTS)
    assert program(PARAMETERS, INPUTS).shape == (5, 4)
    monkeypatch.setattr(backend, "program_folder", lambda: None)
    function = network([])
    assert programs.traced(function, "n", PARAMETERS, INPUTS) is function
