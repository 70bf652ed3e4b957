"""What a vision package must declare, and whether it does. Nothing is executed."""

from validation.model_shape import ModelShape
from validation.runtimes.core_ml_vision import IMAGE_FEATURES, IMAGES, MAIN, PackageDescription
from validation.signature import Port, Signature, signature_problems


def package_problems(
    description: PackageDescription, shape: ModelShape, *, further_sizes: tuple[int, ...] = ()
) -> tuple[str, ...]:
    """Where a package differs from what Apple's app loads: it traps on anything else.

    Args:
        description: what the package says of itself.
        shape: the model's sizes; `main` must take images of its `image_size`.
        further_sizes: each must have a function of its own, and nothing else may be there.

    Source: apple/ml-fastvlm, `app/FastVLM/FastVLM.swift` and the class Xcode makes of the package.
    """
    problems = []
    if description.kind != "mlProgram":
        problems.append(f"expected an mlProgram, found {description.kind}")
    expected = {MAIN: vision_signature(shape, shape.image_size)}
    for size in further_sizes:
        expected[f"size_{size}"] = vision_signature(shape, size)
    if set(description.functions) != set(expected):
        names = ", ".join(description.functions) or "none"
        wanted = "one function, main" if len(expected) == 1 else ", ".join(sorted(expected))
        problems.append(f"expected {wanted}, found {names}")
    if description.default != MAIN:
        problems.append(f"expected main to be the default function, found {description.default}")
    for name, signature in expected.items():
        found = description.signatures.get(name, Signature(inputs=(), outputs=()))
        told = "" if name == MAIN else f"{name}: "
        problems += [f"{told}{problem}" for problem in signature_problems(signature, found)]
    return tuple(problems)


def vision_signature(shape: ModelShape, side: int) -> Signature:
    """`images` float32 [1, 3, S, S] -> `image_features` float32 [1, T, C], all fixed."""
    num_tokens = shape.num_image_tokens * side**2 // shape.image_size**2
    features = (1, num_tokens, shape.vision_channels)
    return Signature(
        inputs=(Port(name=IMAGES, dtype="float32", dims=(1, 3, side, side)),),
        outputs=(Port(name=IMAGE_FEATURES, dtype="float32", dims=features),),
    )
