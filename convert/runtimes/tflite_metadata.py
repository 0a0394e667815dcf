"""Writes TFLite metadata into a .tflite file: what image readers and Android Studio read there.

The metadata are a FlatBuffer of their own, in a buffer called TFLITE_METADATA; the names of the classes are a text
file in a zip archive behind the model. The numbers of fields and enumerators below are those of the schema of
tflite-support (metadata_schema.fbs, version 1.1.0).
"""

import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

from convert.bundle import Bundle
from convert.runtimes import base

LABELS = "labels.txt"
_NAME = b"TFLITE_METADATA"
# With this entry XNNPACK computes in half precision, sums included, on processors that can; others ignore it.
_HALF = {b"reduced_precision_support": b"fp16accfp16"}
_IMAGE, _NORMALIZATION, _RGB, _AXIS_LABELS = 2, 1, 1, 2
_ALIGNMENT = 16  # Of buffers, as the converter itself writes them.


def write(bundle: Bundle) -> None:
    """Puts the metadata, the names of the tensors and the names of the classes into the model file of `bundle`."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    content = bundle.model.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if (
            buffer.size
        ):  # ai-edge-quantizer writes large buffers behind the FlatBuffer, where packing would lose them.
            buffer.data = content[buffer.offset : buffer.offset + buffer.size]
    (graph,) = model.subgraphs
    (signature,) = model.signatureDefs
    for named in (*signature.inputs, *signature.outputs):
        graph.tensors[named.tensorIndex].name = named.name
    outputs = [graph.tensors[index].name.decode() for index in graph.outputs]
    entries = {_NAME: _metadata(bundle, outputs)}
    if bundle.precision == "fp16" and _computes_in_half(model, schema):
        entries |= _HALF
    model.metadata = model.metadata or []
    for name, data in entries.items():
        entry, buffer = schema.MetadataT(), schema.BufferT()
        entry.name, entry.buffer, buffer.data = name, len(model.buffers), data
        model.metadata.append(entry)
        model.buffers.append(buffer)
    for buffer in model.buffers:
        buffer.Pack = _aligned_packing(schema, buffer)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    bundle.model.write_bytes(builder.Output())
    _append_labels(bundle.model, bundle.class_names)


def _computes_in_half(model, schema) -> bool:
    """Returns whether XNNPACK can compute the model in half precision.

    It cannot load products whose first factor is transposed. The exponentials of SeaFormer++ go up to e^44, and half
    precision ends at e^11.
    """
    operators, codes = model.subgraphs[0].operators, schema.BuiltinOperator
    kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    products = [each.builtinOptions for each in operators if kinds[each.opcodeIndex] == codes.BATCH_MATMUL]
    return codes.EXP not in kinds and not any(options.adjX for options in products)


def _append_labels(path: pathlib.Path, names: Sequence[str]) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        # A fixed date, so that the same weights make the same file.
        archive.writestr(zipfile.ZipInfo(LABELS), "".join(f"{name}\n" for name in names))


def _aligned_packing(schema, buffer):
    """Returns a replacement of `BufferT.Pack`, which forgets the alignment that the schema asks for."""

    def pack(builder):
        if buffer.data is not None:
            data = bytes(buffer.data)
            builder.StartVector(1, len(data), _ALIGNMENT)
            builder.head = builder.head - len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if buffer.data is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)

    return pack


def _metadata(bundle: Bundle, outputs: Sequence[str]) -> bytes:
    """Returns a `ModelMetadata`; `outputs` are the names of the outputs in the order of the file."""
    made = _Tables()
    image = made.table({1: made.table({}, enums={0: _RGB})}, unions={0: _IMAGE})
    mean, std = _normalization(bundle)
    options = made.table({0: made.floats(mean), 1: made.floats(std)})
    unit = made.table({1: options}, unions={0: _NORMALIZATION})
    low, high = bundle.preprocessing["value_range"]
    stats = made.table({0: made.floats([high]), 1: made.floats([low])})
    input_ = made.table({0: made.text(bundle.tensors["input"]), 3: image, 4: made.vector([unit]), 5: stats})
    labels = made.table({0: made.text(LABELS)}, enums={2: _AXIS_LABELS})
    found = [
        made.table(
            {0: made.text(name)} | ({6: made.vector([labels])} if name == bundle.tensors["output"] else {})
        )
        for name in outputs
    ]
    graph = made.table({2: made.vector([input_]), 3: made.vector(found)})
    return made.finish(
        {
            0: made.text(bundle.name),
            1: made.text(json.dumps(base.metadata(bundle))),
            3: made.vector([graph]),
            5: made.text(bundle.licence),
            7: made.text("1.0.0"),
        }
    )


def _normalization(bundle: Bundle) -> tuple[list[float], list[float]]:
    """Returns the mean and the deviation of values in 0..255 that make the input of the model."""
    if bundle.input_type == "uint8":
        return [0.0], [1.0]
    mean, std = bundle.normalization or ((0.0,), (1.0,))
    return [255 * value for value in mean], [255 * value for value in std]


class _Tables:
    """Writes FlatBuffer tables, the innermost first; methods return offsets."""

    def __init__(self):
        import flatbuffers

        self._builder = flatbuffers.Builder()

    def text(self, value: str) -> int:
        return self._builder.CreateString(value)

    def floats(self, values: Sequence[float]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return self._builder.EndVector()

    def vector(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return self._builder.EndVector()

    def table(
        self,
        offsets: Mapping[int, int],
        enums: Mapping[int, int] | None = None,
        unions: Mapping[int, int] | None = None,
    ) -> int:
        """Writes a table: number of a field -> offset, enumerator, or type of a union."""
        self._builder.StartObject(1 + max([0, *offsets, *(enums or {}), *(unions or {})]))
        for field, offset in offsets.items():
            self._builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, value in (enums or {}).items():
            self._builder.PrependInt8Slot(field, value, 0)
        for field, value in (unions or {}).items():
            self._builder.PrependUint8Slot(field, value, 0)
        return self._builder.EndObject()

    def finish(self, offsets: Mapping[int, int]) -> bytes:
        self._builder.Finish(self.table(offsets), b"M001")
        return bytes(self._builder.Output())
