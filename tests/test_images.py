"""Pictures as they are found on disks: order of names, strange files, and what is read from good ones."""

import importlib.util
import io
import multiprocessing
import os
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmseg import images
from mmseg.errors import DataError
from mmseg.files import read_bytes
from mmseg.images import MAX_PIXELS, list_pictures, natural_key, read_frame, read_mask


def picture(height=24, width=36, channels=3):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return cv2.blur(noise, (5, 5)).reshape(height, width, channels)


def save(path, array, **options):
    Image.fromarray(array.squeeze()).save(path, **options)
    return path


@pytest.mark.parametrize(
    "ordered",
    [
        [str(i) for i in range(1, 25)],
        [f"{i:05d}" for i in (0, 9, 10, 99, 100, 12345)],
        ["a", "a1", "a2", "a10", "a10b", "b", "b1"],
        ["cut1_frame2", "cut1_frame10", "cut2_frame1", "cut10_frame1"],
        ["01", "1", "02", "2", "10"],
    ],
)
def test_natural_order(ordered):
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(ordered).tolist()
        assert sorted(shuffled, key=natural_key) == ordered


def test_zero_padded_names_come_in_plain_string_order():
    names = [
        f"{prefix}{i:06d}{suffix}" for prefix in ("", "a", "frame_") for i in range(0, 2000, 37) for suffix in "xy"
    ]
    assert sorted(names, key=natural_key) == sorted(names)


def test_pictures_of_a_folder(tmp_path):
    for name in ("10.jpg", "9.PNG", "x.txt", ".8.jpg", "11.JPEG", "Thumbs.db", "1.png"):
        (tmp_path / name).touch()
    assert list_pictures(tmp_path) == ["1.png", "9.PNG", "10.jpg", "11.JPEG"]
    assert list_pictures(tmp_path, (".png",)) == ["1.png", "9.PNG"]
    assert list_pictures(tmp_path / "none") is None and list_pictures(tmp_path / "1.png") is None
    (tmp_path / "10.png").touch()
    with pytest.raises(DataError, match=r"10\.(jpg|png) and 10\.(jpg|png) have the same stem"):
        list_pictures(tmp_path)
    with pytest.raises(DataError, match="cannot be listed"):
        list_pictures("a\0b")


def test_a_pipe_a_device_a_folder_and_a_huge_file_end_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)  # takes no space
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for read in (read_frame, read_mask):
        for name, words in {
            "pipe": "pipe or device",
            "zero": "pipe or device",
            "folder": "a folder",
            "huge": "1048576 MiB",
            "loop": "cannot be read",
            "no\0name": "null byte",
            "none": "No such file",
            "x" * 300: "too long",
        }.items():
            with pytest.raises(DataError, match=words) as caught:
                read(f"{tmp_path}/{name}.png")
            assert "\0" not in str(caught.value) and caught.value.expected and caught.value.action
    with pytest.raises(DataError, match=r"1048576 MiB[^$]*at most 3 MiB"):
        read_bytes(tmp_path / "huge.png", 3 * 2**20)


def png_of(width, height, data=b"", depth=8, kind=0):
    """A PNG file with this header, whose pixels are `data`."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 1, 12_000, 20_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(tmp_path, side):
    """No memory for its pixels is ever asked for: the largest one would need 12 exabytes."""
    (tmp_path / "bomb.png").write_bytes(png_of(side, side))
    for read in (read_frame, read_mask):
        with pytest.raises(DataError, match=str(MAX_PIXELS)):
            read(tmp_path / "bomb.png")


def test_the_limit_is_above_an_8k_frame(tmp_path):
    (tmp_path / "8k.png").write_bytes(png_of(8192, 4320, bytes((8192 + 1) * 4320)))
    assert read_mask(tmp_path / "8k.png").shape == (4320, 8192)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_orientation_of_the_camera_is_ignored_in_frames_as_in_masks(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    frame = read_frame(save(tmp_path / "frame.jpg", picture(), exif=exif))
    np.testing.assert_array_equal(frame, read_frame(save(tmp_path / "plain.jpg", picture())))
    labels = picture(channels=1)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", labels, exif=exif)), labels.squeeze())


def test_frames_of_all_kinds_have_three_channels(tmp_path):
    colour, grey = picture(), picture(channels=1)
    np.testing.assert_array_equal(read_frame(save(tmp_path / "c.png", colour)), colour[..., ::-1])
    np.testing.assert_array_equal(read_frame(save(tmp_path / "g.png", grey)), np.repeat(grey, 3, axis=2))
    alpha = np.dstack([colour, picture(channels=1)])
    np.testing.assert_array_equal(read_frame(save(tmp_path / "a.png", alpha)), colour[..., ::-1])
    for suffix in ("bmp", "tif", "webp"):
        assert read_frame(save(tmp_path / f"c.{suffix}", colour)).shape == (24, 36, 3)
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    difference = read_frame(tmp_path / "cmyk.jpg").astype(int) - colour[..., ::-1]
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("suffix", ["bmp", "tif", "webp", "gif", "png", "jpg"])
def test_truncated_pictures_of_all_kinds(tmp_path, suffix):
    data = save(tmp_path / f"f.{suffix}", picture(channels=1 if suffix == "gif" else 3)).read_bytes()
    (tmp_path / f"f.{suffix}").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DataError, match=rf"f\.{suffix}"):
        read_frame(tmp_path / f"f.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "webp", "gif", "tif"])
def test_animated_pictures_are_refused(tmp_path, suffix):
    pages = [Image.fromarray(picture(channels=1).squeeze() // (i + 1)) for i in range(3)]
    pages[0].save(tmp_path / f"f.{suffix}", save_all=True, append_images=pages[1:])
    for read in (read_frame,) if suffix == "webp" else (read_frame, read_mask):
        with pytest.raises(DataError, match="3 pictures in one file"):
            read(tmp_path / f"f.{suffix}")


def test_a_mask_that_has_lost_something_is_refused(tmp_path):
    save(tmp_path / "mask.jpg", picture(channels=1)).rename(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mask\.png: .*no picture[^$]*PNG"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_masks_of_few_bits_hold_what_is_stored(tmp_path, depth):
    stored = np.random.default_rng(0).integers(0, 2**depth, (6, 16), dtype=np.uint8)
    bits = np.unpackbits(stored[..., None], axis=2)[:, :, -depth:].reshape(6, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    (tmp_path / "grey.png").write_bytes(png_of(16, 6, rows, depth))
    np.testing.assert_array_equal(read_mask(tmp_path / "grey.png"), stored)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xff\xd8"]
)
def test_what_is_no_picture(tmp_path, data):
    (tmp_path / "f.png").write_bytes(data)
    for read in (read_frame, read_mask):
        with pytest.raises(DataError, match=r"f\.png"):
            read(tmp_path / "f.png")


def test_damaged_headers_give_one_clear_error(tmp_path):
    """Any byte of a small file turned over: a picture, or a DataError, and nothing else."""
    stream = io.BytesIO()
    Image.fromarray(picture(5, 6, 1).squeeze()).save(stream, "PNG")
    good = stream.getvalue()
    for position in range(len(good)):
        data = bytearray(good)
        data[position] ^= 0xFF
        (tmp_path / "f.png").write_bytes(bytes(data))
        for read in (read_frame, read_mask):
            try:
                assert read(tmp_path / "f.png").ndim in (2, 3)
            except DataError as error:
                assert "f.png" in error.found and error.expected and error.action


def encoded(labels, palette=False, **options):
    image = Image.fromarray(labels)
    if palette:
        image.putpalette(bytes(range(256)) * 3)
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("palette", [True, False])
def test_label_maps_are_read_alike_however_their_rows_are_stored(palette, tmp_path):
    rng = np.random.default_rng(0)
    for number, size in enumerate([(1, 1), (3, 7), (40, 33), (100, 129)]):
        noise = rng.integers(0, 256, size, dtype=np.uint8)
        steps = np.cumsum(np.ones(size, np.uint8), axis=1, dtype=np.uint8)  # stored as differences when they are grey
        for labels in (noise, steps, np.zeros(size, np.uint8)):
            path = tmp_path / f"{number}.png"
            path.write_bytes(encoded(labels, palette))
            np.testing.assert_array_equal(read_mask(path), labels)


@pytest.mark.parametrize("kind", [0, 3], ids=["grey", "palette"])
@pytest.mark.parametrize(
    "filters",
    [[0] * 20, [1] * 20, [0, 1] * 10, [1] * 19 + [0], [1] * 12 + [2] * 8, [2] * 20],
    ids=["as they are", "to the left", "both", "the last as it is", "later upwards", "upwards"],
)
def test_rows_of_label_maps_are_stored_in_any_of_these_ways(filters, kind, tmp_path):
    labels = np.random.default_rng(0).integers(0, 256, (20, 13), dtype=np.uint8)
    others = {
        0: np.zeros_like(labels),
        1: np.pad(labels, ((0, 0), (1, 0)))[:, :-1],
        2: np.pad(labels, ((1, 0), (0, 0)))[:-1],
    }
    rows = b"".join(bytes([kind]) + (labels - others[kind])[i].tobytes() for i, kind in enumerate(filters))
    data = png_of(13, 20, rows, kind=kind)
    if kind:  # the palette comes before the pixels
        table = bytes(range(256)) * 3
        chunk = struct.pack(">I", 768) + b"PLTE" + table + struct.pack(">I", zlib.crc32(b"PLTE" + table))
        data = data[:33] + chunk + data[33:]
    (tmp_path / "mask.png").write_bytes(data)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), labels)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), labels)


def test_a_filter_that_does_not_exist_is_refused(tmp_path):
    (tmp_path / "mask.png").write_bytes(png_of(13, 20, b"".join(bytes([i // 2, *range(13)]) for i in range(20))))
    with pytest.raises(DataError, match=r"mask\.png"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_label_maps_are_read_in_processes_that_are_forked(tmp_path):
    """Where threads of PyTorch have worked before: those of the child would wait for them forever."""
    labels = np.random.default_rng(0).integers(0, 256, (300, 400), np.uint8)
    rows = b"".join(b"\1" + np.diff(row, prepend=np.uint8(0)).tobytes() for row in labels)
    (tmp_path / "mask.png").write_bytes(png_of(400, 300, rows))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), labels)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.zeros(1 << 20).add_(1)
        child = multiprocessing.get_context("fork").Process(target=read_mask, args=(tmp_path / "mask.png",))
        child.start()
        child.join(20)
    finally:
        torch.set_num_threads(threads)
    alive = child.is_alive()
    child.kill()
    assert not alive and child.exitcode == 0


def test_damaged_label_maps_are_refused_wherever_the_damage_is(tmp_path):
    data = encoded(np.arange(60 * 50, dtype=np.uint16).astype(np.uint8).reshape(60, 50), palette=True)
    path = tmp_path / "mask.png"
    for cut in (10, 30, len(data) // 2):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError):
            read_mask(path)
    pixels = data.index(b"IDAT") + 4
    for place in (pixels + 16, *range(data.index(b"IEND") - 20, data.index(b"IEND") - 8)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DataError):
            read_mask(path)


def test_label_maps_are_read_by_pythons_zlib_where_there_is_no_other(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "zlib_ng", None)
    spec = importlib.util.spec_from_file_location("images_without_zlib_ng", images.__file__)
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)
    assert without.zlib is zlib
    labels = np.arange(60 * 50, dtype=np.uint16).astype(np.uint8).reshape(60, 50)
    path, data = tmp_path / "mask.png", encoded(labels, palette=True)
    path.write_bytes(data)
    assert np.array_equal(without.read_mask(path), labels)
    unpacked = data.index(b"IDAT") + 4
    content = bytes(8) + data[unpacked + 8 : data.index(b"IEND") - 8]  # what cannot be unpacked, with its checksum
    checksum = zlib.crc32(b"IDAT" + content).to_bytes(4, "big")
    path.write_bytes(data[:unpacked] + content + checksum + data[data.index(b"IEND") - 4 :])
    for read in (without.read_mask, read_mask):
        with pytest.raises(DataError):
            read(path)
