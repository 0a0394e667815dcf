"""Starts gcp-storage-emulator with what it lacks and tensorstore needs: generations of objects.

    python -m experiments.storage.gcs_server PORT

Every object has a generation. Google's storage sends it with the content, and writes an object only if the generation
that the client names is the present one, 0 for none (https://cloud.google.com/storage/docs/request-preconditions).
With the variable `REJECT` set, it answers as it does to wrong credentials.
"""

import os
import sys
from http import HTTPStatus

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

_download, _insert = objects.download, objects.insert


def _generation(storage, bucket: str, name: str) -> str:
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def download(request, response, storage, *args, **kwargs) -> None:
    found = _generation(storage, request.params["bucket_name"], request.params["object_id"])
    if request.query.get("ifGenerationNotMatch") == [found]:
        response.status = HTTPStatus.NOT_MODIFIED
        return
    if found != "0":
        response["x-goog-generation"] = found
    _download(request, response, storage, *args, **kwargs)


def insert(request, response, storage, *args, **kwargs) -> None:
    expected, name = (request.query.get(key) for key in ("ifGenerationMatch", "name"))
    if expected and name and expected[0] != _generation(storage, request.params["bucket_name"], name[0]):
        response.status = HTTPStatus.PRECONDITION_FAILED
        return
    _insert(request, response, storage, *args, **kwargs)


def reject(request, response, storage, *args, **kwargs) -> None:
    response.status = HTTPStatus.UNAUTHORIZED
    response.json({"error": {"code": 401, "message": "Invalid Credentials"}})


if __name__ == "__main__":
    objects.download, objects.insert = download, insert
    from gcp_storage_emulator import server  # Its table of handlers has those that `objects` has by now.

    server.RequestHandler.timeout = (
        5  # It serves one client at a time: one that is killed must not block the rest.
    )

    if os.environ.get("REJECT"):
        server.HANDLERS = tuple(
            (pattern, dict.fromkeys(methods, reject)) for pattern, methods in server.HANDLERS
        )
    server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True).run()
