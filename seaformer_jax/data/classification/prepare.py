"""Packs a classification data set into records (`records.py`): images made smaller once, not in every epoch."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from PIL import Image

from seaformer_jax import errors, json_files
from seaformer_jax.data import workers
from seaformer_jax.data.classification import records
from seaformer_jax.data.sources import Source

_SAMPLE = 32  # Images that are encoded to estimate the size of all.


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are stored.

    Attributes:
        store: "jpeg", or "uint8" for pixels.
        short_side: Short side in pixels of the images that are larger; smaller ones keep their size.
        quality: JPEG quality, 1..100.
        shard_images: Images of the source in one shard.
        skip_corrupt: Whether broken images are left out; otherwise they are an error.
    """

    store: str
    short_side: int
    quality: int
    shard_images: int
    skip_corrupt: bool


def prepare(source: Source, folder: epath.Path, settings: Settings) -> int:
    """Writes `source` into `folder`, or goes on where an earlier call was interrupted.

    The card is written after each shard. A shard that it lists is complete.

    Args:
        source: The data set, whose images are Pillow images.
        folder: Folder of the split; it exists.
        settings: How images are stored.

    Returns:
        The number of images that were packed.

    Raises:
        UserError: The folder holds records of another kind, the disk is too small, or an image is broken.
    """
    # 1. What is there already.
    about = {"store": settings.store, "settings": dataclasses.asdict(settings), "source_images": len(source)}
    about |= {"short_side": settings.short_side, "class_names": tuple(source.labels.class_names)}
    card = _existing(folder, about) or {**about, "images": None, "shards": ()}
    if card["images"] is not None:
        return card["images"]
    # 2. The space that the rest needs, said before anything is written.
    done, total = len(card["shards"]), -(-len(source) // settings.shard_images)
    _check_space(source, folder, settings, len(source) - done * settings.shard_images)
    # 3. The shards. Pillow works outside of Python's lock, so threads are enough.
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(workers.cores()) as pool:
        for number in range(done, total):
            first = number * settings.shard_images
            rows = _encoded(
                source, range(first, min(first + settings.shard_images, len(source))), settings, pool
            )
            entry = _write_shard(records.shard_path(folder, number, settings.store), rows, settings.store)
            card["shards"] = (*card["shards"], entry)
            json_files.write(folder / records.CARD, card)
            left = (time.monotonic() - began) / (number + 1 - done) * (total - number - 1)
            logging.info(
                "shard %d of %d (%.0f%%), %.0f s left", number + 1, total, 100 * (number + 1) / total, left
            )
    # 4. The number of images says that all shards are written.
    card["images"] = sum(entry["images"] for entry in card["shards"])
    if not card["images"]:
        raise errors.UserError(f"{folder}: no image of the data set can be decoded; see the log")
    json_files.write(folder / records.CARD, card)
    return card["images"]


def check(folder: epath.Path) -> int:
    """Compares every file of a split with its hash; returns the number of files.

    Raises:
        UserError: A file is missing or differs.
    """
    card = records.read_card(records.local(folder))
    for number, entry in enumerate(card["shards"]):
        path = records.shard_path(folder, number, card["store"])
        records.check_size(path, entry["bytes"])
        for file, expected in ((path, entry["sha256"]), (path.with_suffix(".npz"), entry["index_sha256"])):
            if not file.exists() or _sha256(file) != expected:
                raise errors.UserError(f"{file} is damaged; copy it again, or prepare the data set again")
    return 2 * len(card["shards"])


def _existing(folder: epath.Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the card in `folder`, None without one; UserError if it is not `about` the same records."""
    if not (folder / records.CARD).exists():
        return None
    card = records.read_card(folder)
    for key, value in about.items():
        if card.get(key) != value:
            raise errors.UserError(
                f"{folder} holds records whose {key} is {_short(card.get(key))}, not {_short(value)}; give another "
                "--out, or remove the folder"
            )
    return card


def _short(value: Any) -> str:
    return repr(value) if len(repr(value)) < 200 else f"{repr(value)[:200]}..."


def _check_space(source: Source, folder: epath.Path, settings: Settings, images: int) -> None:
    """Logs how many bytes the images will take, by a sample; UserError if the disk does not have them."""
    sample = np.linspace(0, len(source) - 1, min(_SAMPLE, len(source))).astype(int)
    sizes = [len(row[0]) for i in sample if (row := _encode(source, int(i), settings))]
    needed = int(np.mean(sizes or [0]) * images)
    free = shutil.disk_usage(folder).free
    logging.info(
        "%d images as %s take about %s; %s has %s free",
        images,
        settings.store,
        _size(needed),
        folder,
        _size(free),
    )
    if needed > free:
        raise errors.UserError(
            f"the records take about {_size(needed)}, but {folder} has {_size(free)} free; give an --out on a larger "
            "disk, a smaller --short_side, or --store=jpeg"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count > 1e8 else f"{count / 1e6:.2f} MB"


def _encoded(
    source: Source, indices: range, settings: Settings, pool: concurrent.futures.Executor
) -> Iterator[tuple[bytes, int, int, int]]:
    """Yields the encoded images of `indices` in order; only a few wait at a time."""
    waiting, most = collections.deque(), 4 * workers.cores()
    for index in itertools.chain(indices, [None] * most):
        if index is not None:
            waiting.append(pool.submit(_encode, source, index, settings))
        row = waiting.popleft().result() if waiting and (index is None or len(waiting) > most) else None
        if row:
            yield row


def _encode(source: Source, index: int, settings: Settings) -> tuple[bytes, int, int, int] | None:
    """Returns the stored image, its label, height and width; None if it is broken and left out."""
    try:
        element = source[index]
    except errors.CorruptImageError as error:
        if not settings.skip_corrupt:
            raise
        logging.warning("left out: %s", error)
        return None
    image = element["image"]
    share = settings.short_side / min(image.size)
    if share < 1:
        image = image.resize([max(1, round(share * side)) for side in image.size], Image.Resampling.BICUBIC)
    width, height = image.size
    if height > width:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    if settings.store == "uint8":
        return image.tobytes(), element["label"], height, width
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=settings.quality)
    return buffer.getvalue(), element["label"], height, width


def _write_shard(
    path: epath.Path, rows: Iterator[tuple[bytes, int, int, int]], store: str
) -> dict[str, int | str]:
    """Writes a shard and its index; returns its entry in the card."""
    index = []
    with _writer(path, store) as write:
        for data, *about in rows:
            write(data)
            index.append(about)
    label, height, width = np.array(index, np.int32).reshape(-1, 3).T
    np.savez(path.with_suffix(".npz"), label=label, height=height, width=width)
    hashes = {"sha256": _sha256(path), "index_sha256": _sha256(path.with_suffix(".npz"))}
    return {"images": len(index), "bytes": path.stat().length, **hashes}


@contextlib.contextmanager
def _writer(path: epath.Path, store: str) -> Iterator[Callable[[bytes], object]]:
    """Yields a function that appends one image to a new shard."""
    if store == "uint8":
        with path.open("wb") as file:
            yield file.write
        return
    try:
        from array_record.python.array_record_module import ArrayRecordWriter
    except ImportError as error:
        raise errors.UserError(records.MISSING.format(error)) from error
    # JPEG files cannot be compressed further, and a group of one is read alone.
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    try:
        yield writer.write
    finally:
        writer.close()


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
