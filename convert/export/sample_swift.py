"""Writes the Swift lines of a Core ML bundle's README: from prepared values to the values of the outputs."""

from convert.bundle import Bundle

_CODE = """import CoreML

func run(_ values: [Float]) async throws -> [[Float]] {{
  let package = URL(fileURLWithPath: "{file}")
  let network = try MLModel(contentsOf: try await MLModel.compileModel(at: package))
  let image = MLShapedArray<Float>(scalars: values, shape: [1, 3, {height}, {width}])
  let input = try MLDictionaryFeatureProvider(dictionary: ["{input}": MLMultiArray(image)])
  let output = try await network.prediction(from: input)
  return [{outputs}].map {{ name in
    MLShapedArray<Float>(output.featureValue(for: name)!.multiArrayValue!).scalars
  }}
}}
"""


def code(bundle: Bundle) -> str:
    """Returns a function that runs the model; it reads the package from the working directory."""
    height, width = bundle.input_size
    outputs = ", ".join(f'"{name}"' for key, name in bundle.tensors.items() if key != "input")
    return _CODE.format(
        file=bundle.model.name, height=height, width=width, input=bundle.tensors["input"], outputs=outputs
    )
