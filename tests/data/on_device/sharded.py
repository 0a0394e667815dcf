"""Augments a batch on one device and sharded over all; prints the largest differences as JSON.

python -m tests.data.on_device.sharded   (test_augment.py)
"""

import json

import jax
import numpy as np

from seaformer_jax import mesh as meshes
from seaformer_jax.data.classification.randaugment import RandAugment
from seaformer_jax.data.on_device.erase import random_erasing
from seaformer_jax.data.on_device.mix import mix
from seaformer_jax.data.on_device.normalize import normalize, smooth_one_hot
from seaformer_jax.data.on_device.randaugment import flip, rand_augment

POLICY = RandAugment.parse("rand-m9-mstd0.5", (124, 116, 104))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def augment(images, labels, key):
    first, second, third, fourth = jax.random.split(key, 4)
    images = rand_augment(flip(images, jax.random.bernoulli(third, shape=(len(images),))), fourth, POLICY)
    targets = smooth_one_hot(labels, 10, 0.1)
    images, targets = mix(images, targets, first, mixup=0.2, cutmix=1.0, group=4)
    return random_erasing(normalize(images, MEAN, STD), second, 0.5), targets


def distance(found, expected) -> float:
    return float(
        max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(found, expected, strict=True))
    )


def main() -> dict:
    mesh, size = meshes.create_mesh(), 8 * jax.device_count()
    images = np.random.default_rng(0).integers(0, 256, (size, 8, 10, 3)).astype(np.uint8)
    batch, key = (images, np.arange(size) % 10), jax.random.key(3)
    alone, rows = jax.jit(augment), meshes.batch_sharding(mesh)
    expected = alone(*batch, key)
    with jax.set_mesh(mesh):
        sharded = jax.jit(augment, in_shardings=(rows, rows, None), out_shardings=rows)(*batch, key)
    return {
        "devices": [len(each[0].sharding.device_set) for each in (expected, sharded)],
        "rows": len(sharded[0].addressable_shards[0].data),
        "again": distance(alone(*batch, key), expected),
        "another_key": distance(alone(*batch, jax.random.key(4)), expected),
        "sharded": distance(sharded, expected),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
