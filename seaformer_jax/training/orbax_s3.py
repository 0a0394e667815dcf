"""Lets orbax keep arrays in `s3://` buckets.

Orbax lists, names and completes checkpoints through `etils.epath`, in any bucket, but its arrays go through
tensorstore, and orbax 0.12 has tensorstore's addresses of local folders and of `gs://` only. Three of its private
functions make those addresses; this module replaces them by functions that know `s3://`, too. The extra `s3` bounds
the version of orbax, and `tests/training/test_runs_in_buckets.py` stops and resumes runs in such a bucket.
"""

import functools
import os
from typing import Any


@functools.cache
def enable() -> None:
    """Replaces the functions of orbax, once in a process."""
    from orbax.checkpoint._src.path import gcs_utils
    from orbax.checkpoint._src.serialization import tensorstore_utils

    tensorstore_utils._normalize_path = _normalized
    tensorstore_utils._use_gcs_driver = lambda folder: "://" in folder
    gcs_utils.get_kvstore_for_gcs = functools.partial(_address, gcs_utils.get_kvstore_for_gcs)


def _normalized(path: str) -> str:
    scheme, separator, rest = path.rpartition("://")
    return scheme + separator + os.path.normpath(rest)


def _address(of_gcs: Any, path: str) -> dict[str, Any]:
    """Returns tensorstore's address (https://google.github.io/tensorstore/kvstore/s3) of a folder in a bucket."""
    if not path.startswith("s3://"):
        return of_gcs(path)
    bucket, _, key = path.removeprefix("s3://").partition("/")
    address = {"driver": "s3", "bucket": bucket, "path": key}
    # tensorstore does not read these variables of AWS's tools itself.
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        address["endpoint"] = endpoint
        address["aws_region"] = os.environ.get("AWS_REGION") or os.environ.get(
            "AWS_DEFAULT_REGION", "us-east-1"
        )
    # The default tries these, too, but complains first about files that it does not find.
    if "AWS_ACCESS_KEY_ID" in os.environ:
        address["aws_credentials"] = {"type": "environment"}
    return address
