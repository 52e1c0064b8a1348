from __future__ import annotations

import io
import pickle

import pytest

torch = pytest.importorskip("torch", reason="aistore.pytorch needs torch")
numpy = pytest.importorskip("numpy", reason="aistore.pytorch needs numpy")
Image = pytest.importorskip("PIL.Image", reason="aistore.pytorch needs pillow")

from aistore.pytorch import decode_image, decode_npy, raw_uint8  # noqa: E402
from aistore.pytorch.decoders import default_decode  # noqa: E402

pytestmark = pytest.mark.torch


def encoded(pixels, kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def npy(array) -> bytes:
    out = io.BytesIO()
    numpy.save(out, array)
    return out.getvalue()


def noise(*shape: int):
    return numpy.random.default_rng(7).integers(0, 256, shape, dtype=numpy.uint8)


def test_a_picture_is_rgb_in_0_to_1_with_channels_first():
    pixels = noise(5, 4, 3)
    tensor = decode_image(encoded(pixels, "PNG"))
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert torch.equal(tensor, torch.from_numpy(pixels).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1"])
def test_pictures_of_every_mode_become_rgb(mode):
    out = io.BytesIO()
    Image.fromarray(noise(8, 6, 3)).convert(mode).save(out, "TIFF")
    assert decode_image(out.getvalue()).shape == (3, 8, 6)


def test_a_picture_is_what_torchvision_makes_of_it():
    functional = pytest.importorskip("torchvision.transforms.functional", reason="compares with torchvision")
    data = encoded(noise(64, 48, 3), "JPEG")
    assert torch.equal(decode_image(data), functional.to_tensor(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8", ">f4", ">i2", "?", "<c8"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 3)])
def test_an_npy_array_keeps_its_type_shape_and_values(dtype, shape):
    array = (numpy.arange(24)[: int(numpy.prod(shape))].reshape(shape)).astype(dtype)
    tensor = decode_npy(npy(array))
    assert tensor.shape == shape
    assert numpy.array_equal(tensor.numpy(), array)
    tensor.zero_()  # may be written to


def test_an_npy_array_in_columns_order():
    array = numpy.asfortranarray(noise(4, 5, 3))
    assert numpy.array_equal(decode_npy(npy(array)).numpy(), array)


def test_two_arrays_of_one_header_do_not_share_memory():
    data = npy(noise(3, 3))
    first, second = decode_npy(data), decode_npy(data)
    first.zero_()
    assert second.any()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(noise(4, 4))[:-1], "15 bytes of elements, expected 16"),
        (npy(noise(4, 4)) + b"x", "17 bytes of elements, expected 16"),
        (npy(noise(4, 4))[:9], "not in NPY format"),
        (npy(noise(4, 4))[:40], "EOF: reading array header"),
        (b"\x93NUMPY\x07\x00" + bytes(80), "NPY version 7.0"),
        (b"GIF89a" + bytes(80), "not in NPY format"),
    ],
    ids=["short", "long", "magic only", "half a header", "version", "other format"],
)
def test_a_damaged_array_is_an_error(data, message):
    with pytest.raises(ValueError, match=message):
        decode_npy(data)


def test_pickled_objects_in_an_array_are_refused():
    out = io.BytesIO()
    numpy.save(out, numpy.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="could run code"):
        decode_npy(out.getvalue())


def test_pickled_objects_in_a_torch_file_are_refused():
    out = io.BytesIO()
    torch.save({"x": torch.arange(3)}, out)
    assert torch.equal(default_decode(".pt", out.getvalue())["x"], torch.arange(3))
    out = io.BytesIO()
    torch.save({"x": test_a_damaged_array_is_an_error}, out)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        default_decode(".pt", out.getvalue())


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (".cls", b" 42\n", 42),
        (".txt", "größe".encode(), "größe"),
        (".json", b'{"a": [1]}', {"a": [1]}),
        (".bin", b"\x00\x01", b"\x00\x01"),
        ("", b"", b""),
    ],
)
def test_default_decoders(kind, data, value):
    assert default_decode(kind, data) == value


def test_an_array_is_known_by_its_content_whatever_its_name():
    assert torch.equal(default_decode(".jpg", npy(noise(3, 2))), torch.from_numpy(noise(3, 2)))


def test_raw_bytes_take_a_shape():
    assert raw_uint8((2, 3))(bytes(range(6))).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert raw_uint8((-1, 3))(bytes(6)).shape == (2, 3)
    assert repr(pickle.loads(pickle.dumps(raw_uint8((1, 2))))) == "raw_uint8((1, 2))"
    for shape in [(4, 3), (-1, 4)]:
        with pytest.raises(ValueError, match="6 bytes, expected"):
            raw_uint8(shape)(bytes(6))
