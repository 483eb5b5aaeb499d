from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
import pytest
import torch
from miniatures import write_image
from PIL import Image

from latentiqa.data import images
from latentiqa.data.images import MAX_PIXELS, from_pillow, inspect_images, read_image
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError, DataError


def pixels(tensor: torch.Tensor) -> np.ndarray:
    """(H, W, 3) in 0 to 255."""
    assert tensor.dtype == torch.float32
    assert tensor.shape[0] == 3
    assert tensor.is_contiguous()
    return tensor.permute(1, 2, 0).numpy() * 255


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_values_are_the_quotients_to_the_bit(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.png")
    expected = torch.from_numpy(colours.astype(np.float32) / np.float32(255)).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "a.png"), expected)


def test_rgb_is_read_as_it_is(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert np.allclose(pixels(read_image(tmp_path / "a.png")), colours, atol=1e-4)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_opaque_modes_become_rgb(tmp_path, colours, mode):
    image = Image.fromarray(colours).convert(mode)
    image.save(tmp_path / "a.tif")
    expected = np.asarray(image.convert("RGB"), dtype=float)
    assert np.allclose(pixels(read_image(tmp_path / "a.tif")), expected, atol=1e-4)


def test_cmyk_of_a_jpeg_becomes_rgb(tmp_path):
    """In JPEG files inks are stored inverted, as Adobe does."""
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "CMYK"
    assert np.abs(pixels(read_image(tmp_path / "a.jpg")) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame_is_read(tmp_path, suffix):
    colours = ("red", "lime", "blue")
    first, *others = (Image.new("RGB", (8, 6), colour) for colour in colours)
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others, **options)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    found = pixels(read_image(tmp_path / f"a.{suffix}"))
    assert found.shape == (6, 8, 3)
    assert np.allclose(found, [255, 0, 0])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(tmp_path, colours, mode):
    alpha = np.linspace(0, 255, 54).reshape(6, 9).round().astype(np.uint8)
    image = Image.fromarray(colours)
    image.putalpha(Image.fromarray(alpha))
    image = image.convert(mode)
    image.save(tmp_path / "a.png")
    opaque = np.asarray(image.convert("RGBA"), dtype=float)[..., :3]
    share = alpha[..., None] / 255
    expected = opaque * share + 255 * (1 - share)
    found = pixels(read_image(tmp_path / "a.png"))
    assert np.abs(found - expected).max() <= 1
    assert np.allclose(found[0, 0], 255)


def test_transparent_palette_colour_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.gif", transparency=0)
    assert np.allclose(pixels(read_image(tmp_path / "a.gif"))[0], [[255] * 3, [255, 0, 0]])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    found = read_image(tmp_path / f"a.{suffix}")
    expected = torch.tensor([[0, 257 / 65535, 32768 / 65535, 1]]).expand(3, 1, 4)
    assert torch.allclose(found, expected, atol=1e-7)


def test_sixteen_bit_rgb_png(tmp_path):
    """Pillow cannot write one: header and pixels by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + struct.pack(">6H", 0, 32768, 65535, 65535, 257 * 16, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    assert np.allclose(
        pixels(read_image(tmp_path / "a.png"))[0], [[0, 128, 255], [255, 16, 0]], atol=1
    )


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.array([[0.5, 2.0]], np.float32), "floating"),
        (np.array([[0, 70000]], np.int32), "32-bit"),
    ],
)
def test_pixels_without_agreed_range_are_refused(tmp_path, values, word):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=f"a.tif: {word}.* 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, colours, orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colours).save(tmp_path / "a.png", exif=exif)
    assert np.allclose(pixels(read_image(tmp_path / "a.png")), undo(colours), atol=1e-4)


def test_broken_exif_does_not_hide_the_picture(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.jpg", exif=b"Exif\0\0garbage of an editor")
    assert read_image(tmp_path / "a.jpg").shape == (3, 6, 9)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_name_file_and_reason(tmp_path, suffix, share):
    path = write_image(tmp_path / f"cut.{suffix}", size=(200, 150))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"cut.{suffix}: \S+"):
        read_image(path)


def test_other_unreadable_files(tmp_path):
    (tmp_path / "note.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"note.jpg: not a picture in a format that Pillow reads"):
        read_image(tmp_path / "note.jpg")
    with pytest.raises(DataError, match=r"gone.jpg: No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r": Is a directory"):
        read_image(tmp_path)


def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = write_image(tmp_path / "bomb.png", size=(10, 10))
    record = Record("bomb.png", path, 0.0)
    monkeypatch.setattr(images, "_rgb", lambda image: pytest.fail("decodes it"))
    told = r"refused: 10 x 10 pixels; more than 99 pixels are taken for a decompression bomb, raise"
    with pytest.raises(DataError, match=rf"bomb.png: {told} data\.max_pixels"):
        read_image(path, max_pixels=99)
    with Image.open(path) as image, pytest.raises(DataError, match=told):
        from_pillow(image, max_pixels=99)
    keys, [bad] = inspect_images([record], max_pixels=99)
    assert not keys
    assert bad.reason.startswith("refused: 10 x 10 pixels")


def test_the_limit_can_be_raised_above_pillows_own(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 49)
    path = write_image(tmp_path / "large.png", size=(10, 10))
    assert read_image(path, max_pixels=100).shape == (3, 10, 10)
    # A file that only claims to be huge: Pillow refuses it when it reads the header.
    header = bytearray(path.read_bytes())
    header[16:24] = struct.pack(">II", 60_000, 60_000)
    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    path.write_bytes(header)
    with pytest.raises(DataError, match=r"large.png: refused: .*; more than 120000000 pixels"):
        read_image(path)


def test_the_default_limit_lets_large_cameras_through():
    assert 100_000_000 < MAX_PIXELS < 200_000_000


def test_what_pillow_has_opened_is_what_the_file_holds(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours).convert("P").save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert torch.equal(from_pillow(image), read_image(tmp_path / "a.png"))
    path = write_image(tmp_path / "cut.png", size=(200, 150))
    path.write_bytes(path.read_bytes()[:500])
    with Image.open(path) as image, pytest.raises(DataError, match=r"\(200, 150\): .*truncated"):
        from_pillow(image)


def test_inspection_gives_keys_and_reasons(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", i) for i in range(6)]
    paths[2].write_bytes(paths[2].read_bytes()[:100])
    paths[4].unlink()
    records = [Record(f"n{i}", path, 0.0) for i, path in enumerate(paths)]
    seen = []
    keys, bad = inspect_images(records, workers=3, advance=lambda: seen.append(1))
    assert list(keys) == ["n0", "n1", "n3", "n5"]
    content = hashlib.sha256(paths[0].read_bytes()).hexdigest()[:16]
    assert keys["n0"] == f"{content}:n0"
    assert [image.path for image in bad] == [paths[2], paths[4]]
    assert all(image.reason for image in bad)
    assert "No such file" in bad[1].reason
    assert len(seen) == 6


def test_inspection_arguments():
    with pytest.raises(ConfigError, match="workers=0"):
        inspect_images([], workers=0)
    with pytest.raises(ConfigError, match="max_pixels=0"):
        inspect_images([], max_pixels=0)
