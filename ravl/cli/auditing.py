"""Auditing: `discover`, `show`, `regroup`, `benchmark`."""

from __future__ import annotations

import argparse
from typing import Any

from ravl.benchmark.command import add_options as benchmark_options
from ravl.cli.shared import (
    add_choice,
    add_command,
    add_images,
    add_reviewer,
    add_run,
    feature_ids,
    find_run,
    help_of,
    names,
    note_run,
    print_findings,
    print_json,
    reporting,
)
from ravl.config import (
    AuditConfig,
    ClusteringConfig,
    EmbeddingConfig,
    EvidenceConfig,
    PromptsConfig,
    RegionsConfig,
    SignificanceConfig,
)

_REGIONS = (
    "grid:K for K x K cells (2: the paper's quadrants), grid:2+4 for several grids, grid:3@0.5 for cells that overlap "
    "by half, slic:N for N superpixels, boxes for those of the manifest, boxes:FILE.json for a COCO file, detr:DIR, "
    "owl:DIR or sam:DIR for what a model proposes, perhaps with limits: detr:DIR@nms=0.5,min_area=0.005,max_area=0.8,"
    "min_score=0.05,most=16 (%(default)s)"
)


def add_commands(commands: Any) -> None:
    """Their options."""
    sub = add_command(commands, discover, job=True)
    add_images(sub, required=False)
    sub.add_argument(
        "--model",
        metavar="REF",
        help="directory or hub id of a model of transformers; local-dir:DIRECTORY, hf-hub:ID or open_clip:NAME/TAG of "
        "open_clip; or 'demo'",
    )
    sub.add_argument(
        "--embeddings",
        metavar="FILE",
        help="instead of --images and --model: precomputed embeddings (Parquet, or a folder)",
    )
    sub.add_argument(
        "--text-embeddings", metavar="FILE", help="with --embeddings: those of the class names (npy, Parquet)"
    )
    sub.add_argument(
        "--template", action="append", metavar="TEXT", help="prompt with {} for the class; may be repeated"
    )
    sub.add_argument("--tau", type=_tau, default=PromptsConfig().tau, help=help_of(PromptsConfig, "tau"))
    sub.add_argument("--regions", default=str(RegionsConfig()), metavar="HOW", help=_REGIONS)
    add_choice(sub, "--encoder", EmbeddingConfig, "encoder")
    add_choice(sub, "--clustering", ClusteringConfig, "method")
    add_choice(sub, "--cluster-on", ClusteringConfig, "cluster_on")
    add_choice(sub, "--rule", EvidenceConfig, "rule")
    sub.add_argument("--split-half", action="store_true", help=help_of(SignificanceConfig, "split_half"))
    sub.add_argument("--seed", type=int, default=0, help=help_of(AuditConfig, "seed"))
    sub.add_argument("--name", default="audit", help="what the run's folder is called first (%(default)s)")

    sub = add_command(commands, show)
    add_run(sub)

    sub = add_command(commands, regroup, job=True)
    add_run(sub)
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--merge", metavar="IDS", help="features to join to one, such as 1,4")
    what.add_argument("--split", metavar="ID", help="feature to take apart into its clusters")
    add_reviewer(sub, "who decides")
    sub.add_argument("--note", default="", metavar="TEXT", help="why")

    benchmark_options(add_command(commands, benchmark))


def discover(options: argparse.Namespace) -> int:
    """Find what a model cheats on."""
    from ravl import api

    with reporting(options) as report:
        run = api.discover(
            options.images,
            options.model,
            embeddings=options.embeddings,
            text_embeddings=options.text_embeddings,
            classes=names(options.classes),
            templates=options.template or PromptsConfig().templates,
            tau=options.tau,
            regions=options.regions,
            encoder=options.encoder,
            clustering=options.clustering,
            cluster_on=options.cluster_on,
            rule=options.rule,
            split_half=options.split_half,
            seed=options.seed,
            device=options.device,
            workspace=options.workspace,
            name=options.name,
            frames=options.frames,
            hide_names=options.hide_names,
            report=report,
        )
        note_run(options, run.id)
    print_findings(options, run)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the findings of a finished audit again."""
    print_findings(options, find_run(options))
    return 0


def regroup(options: argparse.Namespace) -> int:
    """Merge features that show the same thing, or split one into its clusters, and score again."""
    from ravl import api

    run = find_run(options)
    note_run(options, run.id)
    kind, text = ("merge", options.merge) if options.merge else ("split", options.split)
    with reporting(options) as report:
        run = api.regroup(
            run,
            kind,
            feature_ids(text),
            options.reviewer,
            note=options.note,
            identity=options.identity,
            device=options.device,
            report=report,
        )
    print_findings(options, run)
    return 0


def benchmark(options: argparse.Namespace) -> int:
    """Measure methods of discovery on models whose spurious feature is known."""
    from ravl.benchmark.command import run

    document = run(options)
    if options.json:
        print_json(document)
    return 0


def _tau(text: str) -> float | str:
    return text if text == "model" else float(text)
