"""Loads packages with coremltools: coremltools_load.py PACKAGES_JSON [PIXELS_NPY OUT].

PACKAGES_JSON maps names to paths of packages. Without PIXELS_NPY (float32 [1, 3, S, S]) they are
loaded as a system without Core ML can: `MLModel(spec)` that cannot predict. With it Core ML loads
every function of each, the packages whose name ends with `fastvithd` predict, and OUT, a folder,
gets what they return as `<number>.npy`. The last line of stdout is a JSON object: `version`, and by
package `functions`: name -> inputs and outputs as `name type [shape]`; `predicted`: name -> file.
"""

import json
import sys
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.models import MLModel
from coremltools.proto import FeatureTypes_pb2, Model_pb2

MAIN = "main"


def opened(package: Path, function: str | None, *, executable: bool) -> MLModel:
    """The package from its specification, as coremltools gives it."""
    spec = ct.models.utils.load_spec(str(package))
    weights = package / "Data" / "com.apple.CoreML" / "weights"
    return MLModel(
        spec,
        weights_dir=str(weights),
        compute_units=ct.ComputeUnit.CPU_AND_NE,
        skip_model_load=not executable,
        function_name=function if executable else None,
    )


def ports(features: list[Model_pb2.FeatureDescription]) -> list[str]:
    """`name type [shape]` of each."""
    types = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
    found = []
    for feature in features:
        array = feature.type.multiArrayType
        found.append(f"{feature.name} {types.Name(array.dataType)} {list(array.shape)}")
    return found


def functions_of(model: MLModel) -> dict[str, list[list[str]]]:
    """Of a package with one function or more."""
    description = model.get_spec().description
    if not description.functions:
        return {MAIN: [ports(description.input), ports(description.output)]}
    return {each.name: [ports(each.input), ports(each.output)] for each in description.functions}


def main(packages: dict[str, str], pixels: np.ndarray | None, out: Path) -> dict[str, object]:
    """Loads every package, and predicts where it may."""
    functions: dict[str, dict[str, list[list[str]]]] = {}
    predicted: dict[str, str] = {}
    for name, path in packages.items():
        model = opened(Path(path), None, executable=False)
        functions[name] = functions_of(model)
        if pixels is None:
            continue
        several = bool(model.get_spec().description.functions)
        for function in functions[name]:
            loaded = opened(Path(path), function if several else None, executable=True)
            if function == MAIN and name.endswith("fastvithd"):
                returned = loaded.predict({"images": pixels})["image_features"]
                predicted[name] = str(out / f"{len(predicted)}.npy")
                np.save(predicted[name], np.asarray(returned, dtype=np.float32))
    return {"version": ct.__version__, "functions": functions, "predicted": predicted}


if __name__ == "__main__":
    given, *rest = sys.argv[1:]
    image = np.load(rest[0]) if rest else None
    document = main(json.loads(given), image, Path(rest[1] if rest else "."))
    sys.stdout.write(f"\n{json.dumps(document)}\n")
