"""What a vision package must declare, and whether it does. Nothing is executed."""

from validation.model_shape import ModelShape
from validation.runtimes.core_ml_vision import IMAGE_FEATURES, IMAGES, PackageDescription
from validation.signature import Port, Signature, signature_problems


def package_problems(description: PackageDescription, shape: ModelShape) -> tuple[str, ...]:
    """Where a package differs from what Apple's app loads: it traps on anything else.

    Source: apple/ml-fastvlm, `app/FastVLM/FastVLM.swift` and the class Xcode makes of the package.
    """
    problems = []
    if description.kind != "mlProgram":
        problems.append(f"expected an mlProgram, found {description.kind}")
    if description.functions != ("main",):
        names = ", ".join(description.functions) or "none"
        problems.append(f"expected one function, main, found {names}")
    return (*problems, *signature_problems(vision_signature(shape), description.signature))


def vision_signature(shape: ModelShape) -> Signature:
    """`images` float32 [1, 3, S, S] -> `image_features` float32 [1, T, C], all fixed."""
    side = shape.image_size
    features = (1, shape.num_image_tokens, shape.vision_channels)
    return Signature(
        inputs=(Port(name=IMAGES, dtype="float32", dims=(1, 3, side, side)),),
        outputs=(Port(name=IMAGE_FEATURES, dtype="float32", dims=features),),
    )
