"""Decoding, folders and manifests."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ravl.data import Reading, decode, load_images, read_images, with_coco
from ravl.data.decoding import decode_bytes
from ravl.data.images import in_order
from ravl.errors import DataError
from ravl.tables import ImageSet, Step

ORIENTATION = 0x0112


def scene(width: int = 6, height: int = 4, seed: int = 0) -> Image.Image:
    """Random colours, so that every turn of it is another picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def put(path: Path, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(seed=seed, **options).save(path)  # type: ignore[arg-type]
    return path


def folder(root: Path, **classes: int) -> Path:
    """`class/00.png`, ... with so many images a class."""
    for y, (name, n) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            put(root / name / f"{i:02d}.png", seed=100 * y + i)
    return root


def manifest(path: Path, rows: list[tuple[str, ...]], separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


# --- decoding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_exif_turn_is_applied(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(scene(48, 32), format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    found = decode_bytes(data)
    assert found.size == ((48, 32) if orientation < 5 else (32, 48))
    np.testing.assert_array_equal(pixels(found), np.asarray(expected))
    assert not found.getexif()
    assert found.info == {}


def test_metadata_that_cannot_be_read_turns_nothing() -> None:
    data = encoded(scene(), exif=b"Exif\x00\x00" + b"MM\x00*" + b"\xff" * 40)
    np.testing.assert_array_equal(pixels(decode_bytes(data)), np.asarray(scene()))


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (255, 0), (256, 1), (32768, 128), (65279, 254), (65535, 255)])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_clipped(value: int, grey: int, format: str) -> None:
    found = pixels(decode_bytes(encoded(Image.fromarray(np.full((2, 3), value, np.uint16)), format)))
    np.testing.assert_array_equal(found, np.full((2, 3, 3), grey))


def test_big_endian_16_bit_grey_equals_little_endian() -> None:
    value = np.array([[0, 1000, 65535]], np.uint16)
    swapped = Image.frombytes("I;16B", (3, 1), value.astype(">u2").tobytes())
    assert pixels(decode_bytes(encoded(swapped, "TIFF")))[0, :, 0].tolist() == [0, 3, 255]


def test_16_bit_grey_equals_16_bit_colour() -> None:
    """A scan is the same picture whether it was saved with one channel or with three."""
    level = np.array([[0, 300, 40_000, 65_535]], np.uint16)
    grey = pixels(decode_bytes(encoded(Image.fromarray(level), "PPM")))
    body = np.repeat(level[..., None], 3, 2).astype(">u2").tobytes()
    colour = pixels(decode_bytes(b"P6 4 1 65535\n" + body))
    assert np.abs(grey.astype(int) - colour).max() <= 1  # Pillow rounds the colour of this format


def test_integer_grey_beyond_16_bits_is_stretched() -> None:
    found = pixels(decode_bytes(encoded(Image.fromarray(np.array([[-1000, 0, 3000]], np.int32)), "TIFF")))
    assert found[0, :, 0].tolist() == [0, 64, 255]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        ((0.0, 0.5, 1.0), (0, 128, 255)),
        ((0.0, 0.1, 0.2), (0, 26, 51)),  # inside 0 .. 1 nothing is stretched
        ((-1.0, 0.0, 3.0), (0, 64, 255)),
        ((7.0, 7.0, 7.0), (0, 0, 0)),
    ],
)
def test_float_grey(values: tuple[float, ...], grey: tuple[int, ...]) -> None:
    found = pixels(decode_bytes(encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")))
    assert found[0, :, 0].tolist() == list(grey)


def test_float_grey_with_nan_is_refused() -> None:
    data = encoded(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF")
    with pytest.raises(DataError, match="not finite"):
        decode_bytes(data)


def test_inverted_tiff_grey_is_turned_over() -> None:
    level = Image.fromarray(np.array([[0, 65535]], np.uint16))
    assert pixels(decode_bytes(encoded(level, "TIFF", tiffinfo={262: 0})))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    found = pixels(decode_bytes(encoded(image.convert(mode))))
    assert found[0, :, 0].tolist() == [0, 255, 255, 255]


def test_half_transparent_pixels_mix_with_white() -> None:
    found = pixels(decode_bytes(encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)))))
    assert found[0, 0].tolist() == [255, 127, 127]


def test_a_transparent_grey_level_is_white() -> None:
    data = encoded(Image.fromarray(np.array([[0, 1000, 65535]], np.uint16)), transparency=1000)
    assert pixels(decode_bytes(data))[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    format = {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG")
    image = Image.new("RGB", (3, 2), "white").convert(mode)
    np.testing.assert_array_equal(pixels(decode_bytes(encoded(image, format))), 255)


def test_a_colour_mode_without_a_rule_is_refused() -> None:
    with pytest.raises(DataError, match="colour mode LAB"):
        decode_bytes(encoded(Image.new("LAB", (2, 2)), "TIFF"))


@pytest.mark.parametrize("format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused(format: str) -> None:
    data = encoded(scene(seed=1), format, save_all=True, append_images=[scene(seed=2), scene(seed=3)])
    with pytest.raises(DataError, match="has 3 frames; export the frame to audit as a file of its own"):
        decode_bytes(data)


def test_the_first_picture_of_a_phone_photo_counts() -> None:
    """Phones save .jpg files whose second frame is a preview or a depth map."""
    data = encoded(scene(seed=1), "MPO", save_all=True, append_images=[scene(seed=2)])
    expected = Image.open(io.BytesIO(encoded(scene(seed=1), "JPEG"))).convert("RGB")
    np.testing.assert_array_equal(pixels(decode_bytes(data)), np.asarray(expected))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_a_truncated_file_is_refused(format: str, share: float) -> None:
    data = encoded(scene(64, 48), format)
    with pytest.raises(DataError, match=r"truncated|not an image"):
        decode_bytes(data[: max(1, int(share * len(data)))])


def test_a_file_that_starts_another_program_is_no_image() -> None:
    with pytest.raises(DataError, match="is not an image that can be read"):
        decode_bytes(encoded(scene(), "EPS"))


@pytest.mark.parametrize("factor", [1.5, 3])  # Pillow warns above the limit and raises above twice the limit
def test_too_many_pixels_are_refused_without_a_warning(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(10_000 / factor))
    with pytest.raises(DataError, match=f"has more than {int(10_000 / factor)} pixels; scale it down"):
        decode_bytes(data)


def test_too_many_pixels_are_refused_on_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)

    def attempt(_: int) -> str:
        try:
            decode_bytes(data)
        except DataError as error:
            return str(error)
        return "decoded"

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(attempt, range(200))) == {"has more than 9000 pixels; scale it down"}


@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_give_an_image_or_a_reason(format: str, damage: list[tuple[float, int]]) -> None:
    """Whatever the bytes are: an RGB image, or a DataError, and never another exception or a warning."""
    data = bytearray(encoded(scene(16, 12), format))
    for where, value in damage:
        data[int(where * len(data))] = value
    try:
        mode = decode_bytes(bytes(data)).mode
    except DataError:
        return
    assert mode == "RGB"


def without_palette() -> bytes:
    """A PNG of palette colours whose palette is gone."""
    data = encoded(scene().convert("P"))
    begin = data.index(b"PLTE") - 4  # its length goes before the name of a chunk, its checksum after the content
    return data[:begin] + data[begin + 12 + int.from_bytes(data[begin : begin + 4], "big") :]


def test_a_picture_that_fails_when_it_is_converted_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is damaged or truncated .*; copy it again"):
        decode_bytes(without_palette())
    folder(tmp_path, cat=2, dog=2)
    (tmp_path / "cat" / "bad.png").write_bytes(without_palette())
    ((name, _),) = read_images(tmp_path, max_unreadable=0.5).skipped
    assert name == "cat/bad.png"


def test_decode_names_the_file_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    os.mkfifo(tmp_path / "pipe.png")  # reading it would block for ever
    for name, reason in {
        "empty.png": "is empty (0 bytes)",
        "text.png": "is not an image that can be read (JPEG, PNG, WEBP, BMP, TIFF, GIF, PPM); save it as PNG or JPEG",
        "pipe.png": "is not a file",
        ".": "is not a file",
        "missing.png": "does not exist",
    }.items():
        with pytest.raises(DataError) as caught:
            decode(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name} {reason}."


# --- folders -------------------------------------------------------------------------------------------------------


def test_a_folder_of_classes(tmp_path: Path) -> None:
    folder(tmp_path, dog=2, cat=1)
    put(tmp_path / "cat" / "deeper" / "x.JPG", width=5, height=9)
    put(tmp_path / "cat" / "img10.png")
    put(tmp_path / "cat" / "img2.png")
    for hidden in (".hidden.png", "notes.txt", "deeper/.thumbs/a.png"):
        put(tmp_path / "cat" / (hidden + ".png")).rename(tmp_path / "cat" / hidden)
    put(tmp_path / ".cache" / "a.png")
    put(tmp_path / "__MACOSX" / "a.png")
    images = read_images(tmp_path)
    assert images.class_names == ("cat", "dog")
    files = ["cat/00.png", "cat/deeper/x.JPG", "cat/img2.png", "cat/img10.png", "dog/00.png", "dog/01.png"]
    assert images.file.tolist() == files
    assert images.label.tolist() == [0, 0, 0, 0, 1, 1]
    assert images.size[:2].tolist() == [[6, 4], [5, 9]]
    assert (images.caption, images.groups, images.skipped) == (None, {}, ())
    assert images.root == str(tmp_path)


def test_every_extension_is_read_in_any_case(tmp_path: Path) -> None:
    folder(tmp_path, a=1, b=1)
    formats = {"jpg": "JPEG", "tif": "TIFF", "pgm": "PPM"}
    for ending in ("jpg", "JPEG", "Png", "webp", "bmp", "tif", "TIFF", "gif", "ppm", "pgm"):
        image = scene().convert("L") if ending == "pgm" else scene()
        image.save(tmp_path / "a" / f"x.{ending}", formats.get(ending, ending.upper()))
    assert len(read_images(tmp_path)) == 12


def test_class_order_is_that_given(tmp_path: Path) -> None:
    folder(tmp_path, dog=1, cat=1)
    images = read_images(tmp_path, ("emu", " dog", "cat"))
    assert images.class_names == ("emu", "dog", "cat")
    assert images.label.tolist() == [2, 1]


def test_whole_number_classes_are_sorted_by_value(tmp_path: Path) -> None:
    assert read_images(folder(tmp_path, **{"10": 1, "9": 1, "-1": 1})).class_names == ("-1", "9", "10")


def test_a_folder_without_images_is_no_class_unless_asked_for(tmp_path: Path) -> None:
    folder(tmp_path, cat=1, dog=1, masks=0)
    (tmp_path / "masks" / "a.json").touch()
    images = read_images(tmp_path, max_unreadable=0)
    assert images.class_names == ("cat", "dog")
    assert images.skipped == (("masks/", "holds no image, so it is not used as a class"),)
    named = read_images(tmp_path, ("cat", "dog", "masks"))
    assert (named.class_names, named.skipped) == (("cat", "dog", "masks"), ())


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    folder(tmp_path / "set", cat=1, dog=1)
    put(tmp_path / "elsewhere" / "far.png")
    (tmp_path / "set" / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "round").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "cat" / "one.png").symlink_to(tmp_path / "elsewhere" / "far.png")
    (tmp_path / "set" / "cat" / "lost.png").symlink_to(tmp_path / "nowhere")
    images = read_images(tmp_path / "set", max_unreadable=0.5)
    assert images.file.tolist() == ["cat/00.png", "cat/linked/far.png", "cat/one.png", "dog/00.png"]
    assert images.skipped == (("cat/lost.png", "does not exist"),)


def test_images_that_are_not_tried_are_listed(tmp_path: Path) -> None:
    folder(tmp_path, cat=9, dog=9)
    (tmp_path / "cat" / "phone.HEIC").write_bytes(b"x")
    put(tmp_path / "loose.png")
    bad = os.fsencode(tmp_path / "dog") + b"/caf\xe9.png"
    os.rename(os.fsencode(put(tmp_path / "dog" / "x.png")), bad)
    images = read_images(tmp_path, max_unreadable=0.15)
    assert len(images) == 18
    assert images.skipped == (
        ("cat/phone.HEIC", "is of the type .heic, which is not read; save it as PNG or JPEG"),
        ("dog/caf\\xe9.png", "has a name that is not valid UTF-8; rename it"),
        ("loose.png", "lies outside of the class folders"),
    )
    with pytest.raises(DataError, match="3 unreadable of 21 are"):
        read_images(tmp_path, max_unreadable=0.1)


def test_unreadable_images_are_listed_up_to_a_share(tmp_path: Path) -> None:
    folder(tmp_path, cat=10, dog=8)
    (tmp_path / "cat" / "00.png").write_bytes(b"")
    whole = (tmp_path / "cat" / "01.png").read_bytes()
    (tmp_path / "cat" / "01.png").write_bytes(whole[: len(whole) // 2])
    images = read_images(tmp_path, max_unreadable=2 / 18)
    assert len(images) == 16
    assert [file for file, _ in images.skipped] == ["cat/00.png", "cat/01.png"]
    assert images.skipped[0][1] == "is empty (0 bytes)"
    assert "truncated" in images.skipped[1][1]
    with pytest.raises(
        DataError, match=r"at most 11 % .* 2 unreadable of 18 are: cat/00.png is empty \(0 bytes\); cat/01"
    ):
        read_images(tmp_path, max_unreadable=0.11)


def without_classes(root: Path) -> None:
    put(root / "a.png")


def without_images(root: Path) -> None:
    folder(root, cat=0, dog=0)
    (root / "cat" / "a.xyz").touch()


def one_class(root: Path) -> None:
    folder(root, cat=3)


def one_class_with_images(root: Path) -> None:
    folder(root, cat=3, dog=0)


def one_readable_class(root: Path) -> None:
    folder(root, cat=3, dog=1)
    (root / "dog" / "00.png").write_bytes(b"")


def nothing_readable(root: Path) -> None:
    folder(root, cat=1, dog=1)
    for name in ("cat", "dog"):
        (root / name / "00.png").write_bytes(b"")


def splits(root: Path) -> None:
    for split in ("Train", "test", "val"):
        folder(root / split, cat=1, dog=1)


def same_but_for_case(root: Path) -> None:
    folder(root, cat=1, Cat=1)


def same_but_for_space(root: Path) -> None:
    folder(root, cat=1, **{"cat ": 1, "dog": 1})


def nameless(root: Path) -> None:
    folder(root, cat=1, **{" ": 1})


def unprintable(root: Path) -> None:
    folder(root, cat=1, dog=1)
    os.rename(os.fsencode(root / "dog"), os.fsencode(root) + b"/d\xf6g")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "holds neither images nor folders. Put every image into a folder named after its class"),
        (without_classes, "holds 1 images but no class folder"),
        (without_images, r"hold no image \(cat, dog\); the file types there are xyz"),
        (one_class, "at least two classes are needed, but all 3 .* 'cat', one class only"),
        (one_class_with_images, "one class only"),
        (one_readable_class, r"\(1 could not be read\) are 'cat', one class only"),
        (nothing_readable, r"at least one image must be readable, but none of 2 is: cat/00.png is empty"),
        (splits, r"must be one split, but .* holds the splits Train, test, val\. Pass one of them, such as .*val\."),
        (same_but_for_case, "differ in more than case, got 'Cat' and 'cat'"),
        (same_but_for_space, "differ in more than spaces, but .* holds 'cat' twice"),
        (nameless, "must have a name"),
        (unprintable, r"must have a name in UTF-8, got 'd\\\\xf6g'"),
    ],
)
def test_folders_that_cannot_be_audited(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        read_images(tmp_path, max_unreadable=1)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("cat",),
            r"must be one of the classes cat, but 'dog' \(2 images\) is not: it would be a class without prompts",
        ),
        (("cat", "dog", "cat"), "differ in more than case, got 'cat' and 'cat'"),
        (("cat", "dog", " "), "every class must have a name"),
    ],
)
def test_classes_that_do_not_fit(classes: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_images(folder(tmp_path, cat=1, dog=2), classes)


def test_split_names_may_be_classes(tmp_path: Path) -> None:
    assert read_images(folder(tmp_path, train=1, test=1), ("train", "test")).class_names == ("train", "test")


@pytest.mark.parametrize("name", ["missing", "image.png", "notes.txt"])
def test_paths_that_are_no_image_set(name: str, tmp_path: Path) -> None:
    put(tmp_path / "image.png")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"images must be a folder .* or a manifest \(.csv, .tsv, .parquet\)"):
        read_images(tmp_path / name)


# --- manifests -----------------------------------------------------------------------------------------------------


def rows_for(root: Path, n: int = 4) -> list[tuple[str, ...]]:
    for i in range(n):
        put(root / "pictures" / f"{i}.png", seed=i)
    return [("image_path", "label"), *((f"pictures/{i}.png", ("dog", "cat")[i % 2]) for i in range(n))]


def test_a_manifest_with_captions_and_groups(tmp_path: Path) -> None:
    head, *rows = rows_for(tmp_path, 70)
    more = [
        ("caption", "site", "id", "one", "image_id "),
        *((f"Ein Bild, n° {i}", "AB"[i % 2], str(i), "x", "") for i in range(70)),
    ]
    path = manifest(tmp_path / "list.csv", [(*a, *b) for a, b in zip([head, *rows], more, strict=True)])
    images = read_images(path)
    assert images.root == str(tmp_path)
    assert images.file.tolist() == [row[0] for row in rows]  # in the order of the rows
    assert images.class_names == ("cat", "dog")
    assert images.label.tolist() == [1, 0] * 35
    assert images.caption is not None
    assert images.caption[3] == "Ein Bild, n° 3"
    assert {name: column.tolist() for name, column in images.groups.items()} == {"site": ["A", "B"] * 35}


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.TSV", "\t")])
def test_text_manifests(name: str, separator: str, tmp_path: Path) -> None:
    path = manifest(tmp_path / name, rows_for(tmp_path), separator)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n")  # as Excel writes it, with a blank line at the end
    assert len(read_images(path)) == 4


def test_a_parquet_manifest_equals_the_text(tmp_path: Path) -> None:
    head, *rows = rows_for(tmp_path)
    rows = [(*row, str(i % 2), text) for i, (row, text) in enumerate(zip(rows, ("a", "", "b", ""), strict=True))]
    text = read_images(manifest(tmp_path / "a.csv", [(*head, "site", "caption"), *rows]))
    table = pd.DataFrame(rows, columns=[*head, "site", "caption"])
    table["site"] = table["site"].astype(int)
    table["caption"] = table["caption"].replace("", None)
    table.to_parquet(tmp_path / "a.parquet")
    found = read_images(tmp_path / "a.parquet")
    assert found.groups["site"].tolist() == ["0", "1", "0", "1"]
    assert found.fingerprint == text.fingerprint


@pytest.mark.parametrize("values", [[0, 1, 10, 9], [0.0, 1.0, 10.0, 9.0]])
def test_numbers_as_labels(values: list[float], tmp_path: Path) -> None:
    files = [row[0] for row in rows_for(tmp_path)[1:]]
    pd.DataFrame({"image_path": files, "label": values}).to_parquet(tmp_path / "a.parquet")
    images = read_images(tmp_path / "a.parquet")
    assert images.class_names == ("0", "1", "9", "10")
    assert images.label.tolist() == [0, 1, 3, 2]


def test_words_that_look_missing_are_labels(tmp_path: Path) -> None:
    rows = [
        (file, label) for (file, _), label in zip(rows_for(tmp_path)[1:], ("NA", "null", "None", "nan"), strict=True)
    ]
    assert read_images(manifest(tmp_path / "a.csv", [("image_path", "label"), *rows])).class_names == (
        "NA",
        "None",
        "nan",
        "null",
    )


def test_paths_in_a_manifest(tmp_path: Path) -> None:
    root = tmp_path / "set"
    rows = rows_for(root)
    outside = put(tmp_path / "outside.png")
    rows[1] = (str(root / "pictures" / "0.png"), "dog")
    rows[2] = ("pictures/../pictures/1.png", "cat")
    rows[3] = ("pictures\\2.png", "dog")
    rows[4] = (" pictures/3.png ", "cat")
    rows.append(("../outside.png", "cat"))
    images = read_images(manifest(root / "a.csv", rows))
    assert images.file.tolist() == [*(f"pictures/{i}.png" for i in range(4)), str(outside)]
    assert len(load_images(images, range(5))) == 5


@pytest.mark.parametrize("spelling", ["pictures/0.png", "./pictures/0.png", "pictures//x/../0.png"])
def test_an_image_is_listed_once(spelling: str, tmp_path: Path) -> None:
    path = manifest(tmp_path / "a.csv", [*rows_for(tmp_path), (spelling, "cat")])
    with pytest.raises(DataError, match=r"every image once, but 1 are listed again, such as that of row 1 in row 5"):
        read_images(path)


def test_missing_files_are_listed_up_to_a_share(tmp_path: Path) -> None:
    path = manifest(tmp_path / "a.csv", [*rows_for(tmp_path), ("gone.png", "cat"), ("pictures", "dog")])
    images = read_images(path, max_unreadable=0.4)
    assert images.skipped == (("gone.png", "does not exist"), ("pictures", "is not a file"))
    with pytest.raises(
        DataError, match=r"at most 5 % .* 1 missing and 1 unreadable of 6 are: gone.png does not exist; "
    ):
        read_images(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the columns image_path and label, separated by commas, got none"),
        ("image_path;label\na;b\n", "got 'image_path;label'"),
        ("file,label\na,b\n", "got 'file', 'label'"),
        ("image_path,label\n", "must list at least one image"),
        ("image_path,label\n\n\n", "must list at least one image"),
        ("image_path,label\na.png,x\nb.png, \n", "must have a label in every row, but row 2 has none"),
        ("image_path,label\n,x\n", "must have a image_path in every row, but row 1"),
        ("image_path,label\na.png,x\na.png,x,y\n", "2 fields in every line, got 3 in line 3"),
        ("image_path,label,label\na,b,c\n", "must have every column once, got 'label' twice"),
        ('image_path,label\n"a.png,x\n', "cannot be read as one"),
        ("image_path,label\na\0.png,x\nb.png,y\n", r"cannot be read|none of 2 is"),
        ("image_path,label\na.png,x\nb.png,x\n", "one class only"),
    ],
)
def test_manifests_that_cannot_be_audited(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_images(tmp_path / "a.csv", max_unreadable=1)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_manifest_of_random_bytes(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(range(128, 256)) * 8)
    with pytest.raises(DataError, match="cannot be read as one"):
        read_images(tmp_path / name)


def test_too_many_classes(tmp_path: Path) -> None:
    rows = [("image_path", "label"), *((f"{i}.png", f"text {i}") for i in range(33_000))]
    with pytest.raises(DataError, match="at most 32767 classes, got 33000"):
        read_images(manifest(tmp_path / "a.csv", rows))


# --- people's own boxes --------------------------------------------------------------------------------------------


def boxed(root: Path, cells: list[str], **options: float) -> ImageSet:
    """Four images of 6 x 4 pixels, from a manifest with this column of boxes."""
    head, *rows = rows_for(root, len(cells))
    table = [(*head, "boxes"), *((*row, cell) for row, cell in zip(rows, cells, strict=True))]
    return read_images(manifest(root / "boxed.csv", table), **options)  # type: ignore[arg-type]


def boxes_of(images: ImageSet) -> list[list[list[int]]]:
    assert images.box is not None
    assert images.box_image is not None
    return [images.box[images.box_image == i].tolist() for i in range(len(images))]


def test_a_manifest_with_boxes(tmp_path: Path) -> None:
    images = boxed(tmp_path, ["[[0,0,6,4],[1, 1, 2.0, 3]]", "[]", "", " [[5,3,6,4]] "], max_unreadable=0)
    assert boxes_of(images) == [[[0, 0, 6, 4], [1, 1, 2, 3]], [], [], [[5, 3, 6, 4]]]
    assert images.skipped_boxes == ()
    assert images.groups == {}
    assert len(images) == 4


def test_boxes_are_clipped_and_the_unusable_are_listed(tmp_path: Path) -> None:
    cells = ["[[-3, -1, 2, 99], [6, 0, 9, 4], [2, 2, 2, 3]]", "[[3, 3, 1, 4], [0, 0, 6, 4], [0, -9, 6, 0]]", "[]", "[]"]
    images = boxed(tmp_path, cells, max_unreadable=4 / 6)
    assert boxes_of(images) == [[[0, 0, 2, 4]], [[0, 0, 6, 4]], [], []]
    assert images.skipped_boxes == (
        ("pictures/0.png", "box 2 [6, 0, 9, 4] lies outside of the image, which has 6 x 4 pixels"),
        ("pictures/0.png", "box 3 [2, 2, 2, 3] is empty"),
        ("pictures/1.png", "box 1 [3, 3, 1, 4] is empty"),
        ("pictures/1.png", "box 3 [0, -9, 6, 0] lies outside of the image, which has 6 x 4 pixels"),
    )
    assert images.skipped == ()
    with pytest.raises(
        DataError, match=r"at most 60 % of the boxes of .*boxed.csv .* 4 of 6 do: pictures/0.png: box 2 \[6, 0, 9, 4\]"
    ):
        boxed(tmp_path, cells, max_unreadable=0.6)


@pytest.mark.parametrize(
    ("box", "whole"),
    [
        ("[0.2, 0.9, 1.1, 2.0]", [0, 0, 2, 2]),  # every pixel that is touched
        ("[0.9999999, 1.0000001, 2.0000001, 2.9999999]", [1, 1, 2, 3]),  # but not by an error of rounding
        ("[2.3, 2.3, 2.4, 2.4]", [2, 2, 3, 3]),
        ("[-1e300, 0, 1e300, 4]", [0, 0, 6, 4]),
    ],
)
def test_boxes_between_pixels(box: str, whole: list[int], tmp_path: Path) -> None:
    assert boxes_of(boxed(tmp_path, [f"[{box}]", "", "", ""])) == [[whole], [], [], []]


def test_boxes_that_are_not_finite_are_listed(tmp_path: Path) -> None:
    images = boxed(tmp_path, ["[[NaN, 0, 1, 1]]", "[[0, 0, Infinity, 1]]", "", ""], max_unreadable=1)
    assert [reason.split("] ")[1] for _, reason in images.skipped_boxes] == ["is not finite", "is not finite"]
    assert boxes_of(images) == [[]] * 4


@pytest.mark.parametrize(
    "cell",
    [
        "[0, 0, 1, 1]",
        "[[0, 0, 1]]",
        "[[0, 0, 1, true]]",
        "0 0 1 1",
        "[[0, 0, 1, 1]",
        "{}",
        "[[[0, 0, 1, 1]]]",
        "[" * 9999,
    ]
    + [f"[[0, 0, 1, {10**400}]]", '[["0", 0, 1, 1]]', "null", "[null]"],
    ids=lambda cell: cell[:12],
)
def test_a_column_of_something_else_is_refused(cell: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"boxed.csv must have a list of boxes .* in row 2\. Write \[x0, y0, x1, y1\]"):
        boxed(tmp_path, ["", cell, "", ""], max_unreadable=1)


def test_boxes_of_unreadable_images_go_with_them(tmp_path: Path) -> None:
    cells = ["[[0,0,1,1]]", "[[0,0,2,2]]", "[[0,0,3,3]]", "[[0,0,4,4]]"]
    head, *rows = rows_for(tmp_path)
    (tmp_path / "pictures" / "1.png").write_bytes(b"")
    table = [(*head, "boxes"), *((*row, cell) for row, cell in zip(rows, cells, strict=True))]
    images = read_images(manifest(tmp_path / "a.csv", table), max_unreadable=0.5)
    assert boxes_of(images) == [[[0, 0, 1, 1]], [[0, 0, 3, 3]], [[0, 0, 4, 4]]]


@pytest.mark.parametrize("nested", [False, True])
def test_boxes_in_parquet(nested: bool, tmp_path: Path) -> None:
    """As text, or as the lists that Parquet has itself."""
    lists = [[[0, 0, 2, 3], [1, 1, 2, 2]], [], None, [[0, 0, 6, 4]]]
    table = pd.DataFrame(rows_for(tmp_path)[1:], columns=["image_path", "label"])
    table["boxes"] = lists if nested else [None if v is None else str(v) for v in lists]
    table.to_parquet(tmp_path / "a.parquet")
    found = read_images(tmp_path / "a.parquet")
    assert boxes_of(found) == [v or [] for v in lists]
    text = boxed(tmp_path, ["" if v is None else str(v) for v in lists])
    assert found.fingerprint == text.fingerprint


def test_the_fingerprint_follows_the_boxes(tmp_path: Path) -> None:
    none = read_images(manifest(tmp_path / "a.csv", rows_for(tmp_path)))
    columns = [[""] * 4, ["[[0,0,1,1]]", "", "", ""], ["", "[[0,0,1,1]]", "", ""], ["[[0,0,1,2]]", "", "", ""]]
    columns += [["[[0,0,1,1],[0,0,1,1]]", "", "", ""]]
    prints = {none.fingerprint, *(boxed(tmp_path, cells).fingerprint for cells in columns)}
    assert len(prints) == 6
    assert boxed(tmp_path, ["[[0,0,1,1]]", "[]", "", ""]).fingerprint in prints  # how nothing is written is no content


# --- COCO ------------------------------------------------------------------------------------------------------------


def coco(path: Path, names: list[str], annotations: list[tuple[int, list[float]]], **more: object) -> Path:
    """A detection file; annotations: (index of the name, x, y, width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "images": [{"id": 10 + i, "file_name": name, **more} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": 10 + n, "bbox": box} for i, (n, box) in enumerate(annotations)],
        "categories": [],
    }
    path.write_text(json.dumps(document))
    return path


def test_boxes_of_a_coco_file(tmp_path: Path) -> None:
    images = read_images(folder(tmp_path / "set", cat=2, dog=2))
    names = ["dog/00.png", "cat/01.png", "of/another/set.png"]
    rows = [(0, [1, 1, 2, 2]), (1, [-1.0, 0, 3.5, 4]), (0, [0, 0, 6, 4]), (2, [0, 0, 1, 1]), (0, [6, 0, 1, 1])]
    path = coco(tmp_path / "boxes.json", names, rows)
    found = with_coco(images, path, 0.25)
    assert boxes_of(found) == [[], [[0, 0, 3, 4]], [[1, 1, 3, 3], [0, 0, 6, 4]], []]
    assert found.skipped_boxes == (
        ("dog/00.png", "box 3 [6, 0, 7, 1] lies outside of the image, which has 6 x 4 pixels"),
    )
    assert found.fingerprint not in ("", images.fingerprint)
    assert images.box is None
    with pytest.raises(DataError, match=r"at most 20 % of the boxes of .*boxes.json .*, but 1 of 4 do"):
        with_coco(images, path, 0.2)


@pytest.mark.parametrize("name", ["set/cat/00.png", "cat/00.png", "00.png", "cat\\00.png", "./set/../set/cat/00.png"])
def test_names_in_a_coco_file(name: str, tmp_path: Path) -> None:
    """Relative to the images, relative to the file, or a name that only one image has."""
    images = read_images(folder(tmp_path / "set", cat=1, dog=2))
    put(tmp_path / "set" / "dog" / "00.png").rename(tmp_path / "set" / "dog" / "02.png")
    images = read_images(tmp_path / "set")
    found = with_coco(images, coco(tmp_path / "boxes.json", [name], [(0, [0, 0, 1, 1])]), 0)
    assert boxes_of(found) == [[[0, 0, 1, 1]], [], []]
    absolute = coco(tmp_path / "b.json", [str(tmp_path / "set" / "cat" / "00.png")], [(0, [0, 0, 1, 1])])
    assert with_coco(images, absolute, 0).fingerprint == found.fingerprint


def test_an_exact_name_goes_before_a_bare_one(tmp_path: Path) -> None:
    images = read_images(folder(tmp_path, cat=1, dog=1))
    found = with_coco(images, coco(tmp_path / "b.json", ["cat/00.png"], [(0, [0, 0, 1, 1])]), 0)
    assert boxes_of(found) == [[[0, 0, 1, 1]], []]


def test_paths_of_a_larger_set_are_not_taken_for_names(tmp_path: Path) -> None:
    """One file for training and validation images, which are called alike; dog/01.png has no record."""
    images = read_images(folder(tmp_path / "val", cat=2, dog=2))
    names = [f"{split}/{name}.png" for split in ("train", "val") for name in ("cat/00", "cat/01", "dog/00")]
    names.append("train/dog/01.png")
    path = coco(tmp_path / "b.json", names, [(i, [0, 0, 1, 1 + i % 3]) for i in range(7)])
    assert boxes_of(with_coco(images, path, 0)) == [[[0, 0, 1, 1]], [[0, 0, 1, 2]], [[0, 0, 1, 3]], []]


@pytest.mark.parametrize("names", [["00.png"], ["train/01.png", "val/01.png"]])
def test_a_name_that_may_be_any_of_several_is_refused(names: list[str], tmp_path: Path) -> None:
    images = read_images(folder(tmp_path, cat=2, dog=1))
    with pytest.raises(
        DataError,
        match=r"must fit one image, but that of entry 1 \('.*'\) may be any of cat/0.*\. Write paths relative to",
    ):
        with_coco(images, coco(tmp_path / "b.json", names, []), 0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["jane_doe.png"], "that of entry 1 may be any of 2. Write"),
        (["john_doe.png"], "but none of 1 is. Write paths relative to .*set.$"),
    ],
)
def test_a_set_that_hides_names_hides_those_of_its_boxes(names: list[str], message: str, tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        put(tmp_path / "set" / kind / "jane_doe.png")
    images = read_images(tmp_path / "set", reading=Reading(hide_names=True))
    with pytest.raises(DataError, match=message) as caught:
        with_coco(images, coco(tmp_path / "b.json", names, []), 0)
    assert "doe" not in str(caught.value)
    assert str(images.file[0]) not in str(caught.value)


def test_one_image_under_two_ids_has_the_boxes_of_both(tmp_path: Path) -> None:
    images = read_images(folder(tmp_path, cat=1, dog=1))
    path = coco(tmp_path / "b.json", ["dog/00.png", "dog/00.png"], [(1, [0, 0, 1, 1]), (0, [0, 0, 2, 2])])
    assert boxes_of(with_coco(images, path, 0)) == [[], [[0, 0, 1, 1], [0, 0, 2, 2]]]


def test_boxes_drawn_on_a_turned_picture_are_not_used(tmp_path: Path) -> None:
    """A tool that ignores the EXIF turn states the sides the other way round."""
    images = read_images(folder(tmp_path, cat=1, dog=1))
    path = coco(tmp_path / "b.json", ["dog/00.png"], [(0, [0, 0, 1, 1])], width=4, height=6)
    found = with_coco(images, path, 1)
    assert boxes_of(found) == [[], []]
    assert found.skipped_boxes == (
        ("dog/00.png", "box 1 [0, 0, 1, 1] was drawn on 4 x 6 pixels, but the upright image has 6 x 4 pixels"),
    )
    right = coco(tmp_path / "c.json", ["dog/00.png"], [(0, [0, 0, 1, 1])], width=6, height=4)
    assert boxes_of(with_coco(images, right, 0)) == [[], [[0, 0, 1, 1]]]


def test_a_coco_file_without_annotations_gives_no_boxes(tmp_path: Path) -> None:
    images = read_images(folder(tmp_path, cat=1, dog=1))
    assert boxes_of(with_coco(images, coco(tmp_path / "b.json", ["cat/00.png"], []), 0)) == [[], []]


def test_a_coco_file_goes_before_the_column(tmp_path: Path) -> None:
    images = boxed(tmp_path, ["[[0,0,1,1]]", "[[9,9,9,9]]", "", ""], max_unreadable=0.5)
    found = with_coco(images, coco(tmp_path / "b.json", ["3.png"], [(0, [0, 0, 2, 2])]), 0)
    assert boxes_of(found) == [[], [], [], [[0, 0, 2, 2]]]
    assert found.skipped_boxes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("", "is not JSON"),
        ("[]", "a JSON object with the lists images and annotations, but lacks them. Export it for object detection"),
        ('{"images": []}', "but lacks them"),
        ('{"images": [], "annotations": []}', r"must be that of an image, but none of 0 is \(none\)"),
        ('{"images": [{"id": 1, "file_name": "x.png"}], "annotations": []}', r"none of 1 is \(x.png\)\. .* cat/00.png"),
        ('{"images": [{"id": 1}], "annotations": []}', "must have an id and a file_name, but entry 1 has not"),
        ('{"images": [{"id": true, "file_name": "x"}], "annotations": []}', "must have an id and a file_name"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}',
            "entry 2 repeats",
        ),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}', "the image_id of one of its images"),
        (
            '{"images": [], "annotations": [{"image_id": [], "bbox": [0, 0, 1, 1]}]}',
            "the image_id of one of its images",
        ),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1]}]}', "must have a bbox .* but entry 1 has"),
        ('{"images": [], "annotations": [7]}', "must have a bbox"),
    ],
)
def test_what_is_no_coco_file_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    images = read_images(folder(tmp_path, cat=1, dog=1))
    if text is not None:
        (tmp_path / "b.json").write_text(text)
    with pytest.raises(DataError, match=message):
        with_coco(images, tmp_path / "b.json", 1)


# --- identity, progress, loading -----------------------------------------------------------------------------------


def test_the_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    first = read_images(folder(tmp_path / "a", cat=2, dog=2))
    assert read_images(folder(tmp_path / "b", cat=2, dog=2)).fingerprint == first.fingerprint
    prints = {first.fingerprint}
    changed = folder(tmp_path / "c", cat=2, dog=2)
    put(changed / "cat" / "00.png", seed=77)
    prints.add(read_images(changed).fingerprint)
    (changed / "cat" / "00.png").rename(changed / "cat" / "0.png")
    prints.add(read_images(changed).fingerprint)
    (changed / "cat" / "01.png").unlink()
    prints.add(read_images(changed).fingerprint)
    prints.add(read_images(changed, ("dog", "cat")).fingerprint)
    rows = rows_for(tmp_path / "d")
    prints.add(read_images(manifest(tmp_path / "d" / "a.csv", rows)).fingerprint)
    swapped = [rows[0], *((file, {"cat": "dog", "dog": "cat"}[label]) for file, label in rows[1:])]
    prints.add(read_images(manifest(tmp_path / "d" / "b.csv", swapped)).fingerprint)
    for column in ("caption", "site"):
        more = [(*rows[0], column), *((*row, str(i)) for i, row in enumerate(rows[1:]))]
        prints.add(read_images(manifest(tmp_path / "d" / f"{column}.csv", more)).fingerprint)
    assert len(prints) == 9


def test_reading_is_deterministic_and_reported(tmp_path: Path) -> None:
    folder(tmp_path, cat=30, dog=30)
    steps: list[Step] = []
    first = read_images(tmp_path, report=steps.append)
    assert [(step.stage, step.done, step.total) for step in steps] == [("images", i, 60) for i in range(61)]
    again = read_images(tmp_path)
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.file, first.file)


def test_an_interrupted_reading_does_not_go_on() -> None:
    started = 0
    release = threading.Event()

    def slow(_: int) -> int:
        nonlocal started
        started += 1
        release.wait(0.01)
        return started

    results = in_order(slow, range(10_000))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert started < 1000


def test_load_images_keeps_the_order(tmp_path: Path) -> None:
    images = read_images(folder(tmp_path, cat=5, dog=5))
    ids = [7, 0, 0, 9]
    for i, found in zip(ids, load_images(images, np.array(ids)), strict=True):
        np.testing.assert_array_equal(pixels(found), pixels(decode(tmp_path / str(images.file[i]))))
    assert load_images(images, []) == []


def test_load_images_tells_what_changed(tmp_path: Path) -> None:
    images = read_images(folder(tmp_path, cat=2, dog=1))
    (tmp_path / "cat" / "00.png").unlink()
    put(tmp_path / "cat" / "01.png", width=9)
    advice = "The image set has changed since it was read: put the file back, or start a new audit"
    with pytest.raises(DataError, match=f"00.png does not exist. {advice}"):
        load_images(images, [0])
    with pytest.raises(DataError, match=f"must have 6 x 4 pixels, got 9 x 4. {advice}"):
        load_images(images, [2, 1])
