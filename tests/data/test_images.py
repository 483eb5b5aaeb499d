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
from latentiqa.data.images import Resize, from_pillow, inspect_images, read_image
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
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))],
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


@pytest.mark.parametrize("ours", [True, False], ids=["our limit", "Pillow's limit"])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, ours):
    if ours:
        monkeypatch.setattr(images, "MAX_PIXELS", 99)
    else:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 49)
    path = write_image(tmp_path / "bomb.png", size=(10, 10))
    with pytest.raises(DataError, match=r"bomb.png: refused: .*decompression bomb"):
        read_image(path)


def pillow_bicubic(channel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An independent antialiased bicubic, float32; size is (width, height)."""
    return np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (20, 25)])
def test_stretch_equals_pillow(shape):
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    found = Resize(32, "stretch")(image)
    assert found.shape == (3, 32, 32)
    expected = np.stack([pillow_bicubic(channel.numpy(), (32, 32)) for channel in image])
    assert np.allclose(found.numpy(), expected.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize(("shape", "scaled"), [((40, 60), (48, 32)), ((61, 40), (32, 49))])
def test_short_side_keeps_the_aspect_and_crops_the_centre(shape, scaled):
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    found = Resize(32, "short_side")(image)
    left, top = (scaled[0] - 32) // 2, (scaled[1] - 32) // 2
    expected = np.stack([pillow_bicubic(channel.numpy(), scaled) for channel in image])
    expected = expected[:, top : top + 32, left : left + 32]
    assert np.allclose(found.numpy(), expected.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("mode", ["stretch", "short_side"])
def test_resize_stays_in_range_and_leaves_the_right_size_alone(mode):
    checks = (torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2
    image = checks.float().expand(3, 64, 64)
    larger = Resize(100, mode)(image)
    assert (larger.min(), larger.max()) == (0, 1)
    assert torch.equal(Resize(64, mode)(image), image)
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Resize(64, mode)(noise), noise)
    beyond = 3 * noise - 1
    assert torch.equal(Resize(64, mode)(beyond), (3 * noise - 1).clamp(0, 1))
    assert torch.equal(beyond, 3 * noise - 1)  # itself untouched


@pytest.mark.parametrize("mode", ["stretch", "short_side"])
def test_a_batch_is_resized_as_each_of_its_pictures(mode):
    image = torch.rand(3, 3, 57, 91, generator=torch.Generator().manual_seed(0))
    resize = Resize(32, mode)
    assert torch.equal(resize(image), torch.stack([resize(picture) for picture in image]))


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


def test_resize_arguments():
    with pytest.raises(ConfigError, match="size=0"):
        Resize(0)
    with pytest.raises(ConfigError, match="mode='crop'"):
        Resize(8, "crop")


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
