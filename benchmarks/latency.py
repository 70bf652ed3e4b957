"""The table of speed: our bundle beside the peers, from one run.

    make bench-latency                        # builds the bundles and the peers' environments
    python -m benchmarks.latency --bundle dist/0.5b --trained dist/tiny

Writes benchmarks/latency.json and latency.md. The bundle is timed; the trained one tells what
quantization costs where weights mean something. Everything else is temporary.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import latency_contests as contests
from benchmarks.contestant import Floats
from benchmarks.latency_page import markdown
from benchmarks.latency_peers import (
    GENAI,
    LLAMA,
    LanguagePeers,
    make_language_peers,
    make_plain_graphs,
    versions_of_peers,
)
from benchmarks.latency_report import Quality, Report, as_json
from benchmarks.referee import ROOT
from benchmarks.watch import describe_machine
from fastvlm_compile.bundle.manifest import MANIFEST_NAME, read_manifest
from fastvlm_compile.bundle.opening import graphs_of
from fastvlm_compile.latency.process import probe_speeds
from fastvlm_compile.latency.request import Request, Speeds
from fastvlm_compile.latency.surroundings import OthersWatch, load_average
from fastvlm_compile.tree_digest import sha256_of
from reference.preprocess import preprocess
from reference.scenes.scene import held_out
from reference.tokenizer import load_tokenizer
from validation.latency.graph_bytes import weight_bytes
from validation.latency.samples import Roofline, Settings

LIBRARIES = ("numpy", "torch", "onnx", "onnxruntime")
FIRST_SCENE = 7_000
"""Held out, and none of those that goldens are taken from."""
DECISIVE = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
)
"""Integer products four at a time (`vnni`, `dp`) make 8-bit kernels several times as fast."""
_CPUINFO = Path("/proc/cpuinfo")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def main() -> None:
    """Parse, make the peers, hold the contests, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("benchmarks/latency"))
    parser.add_argument(
        "--bundle", type=Path, required=True, help="with fp32, int8, int4 and torch"
    )
    parser.add_argument("--trained", type=Path, required=True, help="likewise, of trained weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=280, help="of the prompt")
    parser.add_argument("--steps", type=int, default=32, help="behind each prompt")
    parser.add_argument("--images", type=int, default=2, help="whose features are compared")
    parser.add_argument("--trained-images", type=int, default=16)
    arguments = parser.parse_args()
    for python in (GENAI, LLAMA):
        if not python.is_file():
            parser.error(f"{python.parents[1].name} is missing: run `make bench-peers` first")
    with tempfile.TemporaryDirectory() as folder:
        report = measured(arguments, Path(folder))
    for suffix, text in ((".json", as_json(report)), (".md", markdown(report))):
        target = arguments.report.with_suffix(suffix)
        target.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print(target)


def measured(arguments: argparse.Namespace, folder: Path) -> Report:
    """The whole run."""
    load, others = load_average(), OthersWatch()
    timed, trained = (
        setting_of(bundle.resolve(), arguments, _new(folder / name))
        for name, bundle in (("timed", arguments.bundle), ("trained", arguments.trained))
    )
    speeds = [_machine_speeds(timed.threads)]
    peers = _peers(timed)
    _say("plain graphs")
    plain = make_plain_graphs(timed.bundle, _new(timed.folder / "plain"))
    _say("decoders")
    decoded, kl = contests.language(timed, peers, _vocab_size(timed))
    _say("vision")
    towers, psnr = contests.vision(timed, plain, pictures(timed, arguments.images))
    _say("first token")
    first = contests.first_token(timed, plain)
    _say("memory")
    picture = timed.folder / "scene.png"
    held_out(FIRST_SCENE, size=timed.contract.image_size).image.save(picture)
    memory = contests.memory(timed, plain, picture)
    quality = (
        Quality(weights=timed.name, kl=kl, psnr_db=psnr),
        quality_of(trained, arguments.trained_images),
    )
    profiles = profiles_of(timed)
    speeds.append(_machine_speeds(timed.threads))
    return Report(
        bundles={each.name: sha256_of(each.bundle / MANIFEST_NAME) for each in (timed, trained)},
        threads=timed.threads,
        num_rounds=timed.num_rounds,
        num_tokens=timed.num_tokens,
        num_steps=timed.num_steps,
        contests=(decoded, towers, first),
        memory=memory,
        quality=quality,
        decoder_bytes={
            contests.ours(variant): weight_bytes(path) for variant, path in _decoders(timed).items()
        },
        file_bytes=peers.sizes_bytes(),
        profiles=profiles,
        roofline=roofline(speeds),
        machine={**describe_machine(LIBRARIES), "instructions": instructions()},
        peers=versions_of_peers(),
        load_before=load,
        others_during=others.processors(),
    )


def setting_of(bundle: Path, arguments: argparse.Namespace, folder: Path) -> contests.Setting:
    """A bundle to be measured; `folder` is filled with what that needs."""
    manifest, checkpoint = read_manifest(bundle), _new(folder / "checkpoint")
    files = [*(bundle / "torch").iterdir(), *(bundle / name for name in TOKENIZER)]
    for file in files:
        if file.is_file():
            (checkpoint / file.name).symlink_to(file)
    return contests.Setting(
        bundle=bundle,
        checkpoint=checkpoint,
        name=manifest.name,
        contract=manifest.contract,
        folder=folder,
        threads=arguments.threads,
        num_rounds=arguments.rounds,
        num_tokens=arguments.tokens,
        num_steps=arguments.steps,
    )


def pictures(setting: contests.Setting, count: int) -> Floats:
    """[N, 3, S, S]: rendered scenes that nothing was trained or calibrated on."""
    contract = setting.contract
    scenes = (
        held_out(FIRST_SCENE + index, size=contract.image_size).image for index in range(count)
    )
    return np.stack(
        [preprocess(scene, size=contract.image_size, fit=contract.fit) for scene in scenes]
    )


def quality_of(setting: contests.Setting, num_images: int) -> Quality:
    """Distances alone; the times of so small a model say nothing."""
    _, kl = contests.language(replace(setting, num_rounds=1), _peers(setting), _vocab_size(setting))
    psnr = contests.psnr_of_ours(setting, pictures(setting, num_images))
    return Quality(weights=f"{setting.name}, trained", kl=kl, psnr_db=psnr)


def profiles_of(setting: contests.Setting) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """By graph, phase and kind of node."""
    threads = ("--threads", str(setting.threads))
    wanted: dict[str, tuple[str, ...]] = {
        contests.ours(variant): (
            *("decoder", "--graph", str(path), "--tokens", str(setting.num_tokens)),
            *("--embed", str(graphs_of(setting.bundle, variant).embed_tokens)),
        )
        for variant, path in _decoders(setting).items()
    }
    for name, variant in ((contests.FLOAT_VISION, "fp32"), (contests.INT8_VISION, "int8")):
        graph = graphs_of(setting.bundle, variant).vision_encoder
        wanted[name] = ("vision", "--graph", str(graph), "--runs", "3")
    found = {}
    for name, options in wanted.items():
        _say(f"profile of {name}")
        command = [sys.executable, "-m", "benchmarks.onnx_profile", *options, *threads]
        told = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout
        found[name] = json.loads(told)
    return found


def roofline(speeds: Sequence[Speeds]) -> Roofline:
    """The best of what was measured, for what interferes only ever slows down."""
    reads, products = zip(
        *((each.read_bytes_per_s, each.sgemm_flop_per_s) for each in speeds), strict=True
    )
    return Roofline(
        read_bytes_per_s=max(reads),
        sgemm_flop_per_s=max(products),
        drift=max(max(reads) / min(reads), max(products) / min(products)),
    )


def instructions() -> str:
    """The vector instructions that decide which kernels run."""
    flags = set(_CPUINFO.read_text(encoding="utf-8").split())
    return "+".join(name for name in DECISIVE if name in flags) or "none of them"


def _machine_speeds(threads: int) -> Speeds:
    _say("roofline of the machine")
    settings = Settings(threads=threads, prompt_lengths=(), min_seconds=1, min_runs=1)
    request = Request(bundle="", job=None, settings=settings, num_new_tokens=1)
    speeds = probe_speeds(request, lambda _: None)
    if speeds is None:
        raise RuntimeError("the process that measures the machine died")
    return speeds


def _peers(setting: contests.Setting) -> LanguagePeers:
    _say(f"peers of {setting.name}")
    return make_language_peers(setting.checkpoint, _new(setting.folder / "peers"))


def _decoders(setting: contests.Setting) -> dict[str, Path]:
    return {
        variant: graphs_of(setting.bundle, variant).decoder_model_merged
        for variant in contests.OUR_INT4
    }


def _vocab_size(setting: contests.Setting) -> int:
    return load_tokenizer(setting.checkpoint).vocab_size


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    main()
