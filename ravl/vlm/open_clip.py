"""Models of open_clip (the extra `open-clip`): its own vision transformers, those of timm, ModifiedResNets, and others.

| vision tower | region encoder | last layer |
|---|---|---|
| open_clip's VisionTransformer; pooling by class token, mean or attention | tokens | projection |
| timm's VisionTransformer (SigLIP, BiomedCLIP), with class, register or no tokens | tokens | projection, pool or head |
| ModifiedResNet | roi | attention pool |
| any other | crop | the whole tower |

A tower that was taken apart must give the answers of the whole, else it is not looked into, and regions are cut out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import Parameter

from ravl.errors import ModelError
from ravl.vlm.geometry import Geometry
from ravl.vlm.model import DualEncoder
from ravl.vlm.references import HF_HUB, LOCAL_DIR, OPEN_CLIP_CONFIG, Reference, allow_pickle, loading, pickle_refused
from ravl.vlm.roi import MapTower
from ravl.vlm.towers import TokenTower, Tower, WholeTower, same

WEIGHTS = "open_clip_model.safetensors"
TEXT_TOWER = "text_tower"
"""Folder of a saved model with the configuration of a text tower of transformers; open_clip asks the hub for it."""

_STRIDE = 32
"""Pixels per cell of a ModifiedResNet's last map."""


@dataclass(frozen=True)
class _Source:
    """What a model is built from. name: for open_clip. model, preprocess: its configuration. weights: a file."""

    name: str
    model: dict[str, Any]
    preprocess: dict[str, Any]
    weights: str
    folder: Path | None = None


def load(reference: Reference, device: torch.device, pickled: bool | None = None) -> DualEncoder:
    """Load a model of open_clip's list, a directory in its layout, or a repository of the hub in that layout.

    Raises ModelError without open_clip, and where a part is missing, unsafe or broken.
    """
    open_clip = library()
    where = reference.where
    pickled = allow_pickle() if pickled is None else pickled
    source = loading(where, "configuration", lambda: _source(open_clip, where))
    if not source.weights.endswith(".safetensors") and not pickled:
        raise pickle_refused(where, Path(source.weights).name)
    _check_preprocessing(where, source.preprocess)

    def build() -> Any:
        own = source.folder / TEXT_TOWER if source.folder else None
        text = {**source.model["text_cfg"], "hf_model_pretrained": False}
        local = {"text_cfg": {**text, "hf_model_name": str(own)}} if own and own.is_dir() else {}
        module = open_clip.create_model(
            *(source.name,),
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=bool(source.model.get("quick_gelu")),
            force_preprocess_cfg=source.preprocess,
            **local,
        )
        open_clip.factory.load_checkpoint(module, source.weights, strict=True, weights_only=True)
        return module

    module = loading(where, "weights", build)
    tokenizer = loading(where, "tokenizer", lambda: open_clip.get_tokenizer(source.name))
    return assemble(reference.name, module, tokenizer, source.model, device)


def assemble(name: str, module: Any, tokenizer: Any, model_cfg: dict[str, Any], device: torch.device) -> DualEncoder:
    """Put a built model and its tokenizer together. model_cfg: what it was built from, as open_clip writes it.

    Raises ModelError for a preprocessing that does not fit the model, or whose layout is not known.
    """
    open_clip = library()
    module = module.to(device).eval()
    visual = module.visual
    settings = {key: value for key, value in dict(visual.preprocess_cfg).items() if value is not None}
    transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**settings), is_train=False)

    def prepare(images: list[Image.Image]) -> Tensor:
        return torch.stack([transform(image) for image in images])

    def forward(pixels: Tensor) -> Tensor:
        return module.encode_image(pixels.to(device), normalize=False)  # type: ignore[no-any-return]

    def read(texts: list[str]) -> Tensor:
        return module.encode_text(tokenizer(texts).to(device), normalize=False)  # type: ignore[no-any-return]

    noise = (torch.rand(96, 80, 3, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    example = loading(name, "image preprocessing", lambda: prepare([Image.fromarray(noise.numpy())]))
    tower, patch, why = _tower(visual, forward, example.to(device))
    with torch.no_grad():
        dim = int(read(["a"]).shape[1])
    last, projection = _last(visual)
    return DualEncoder(
        name=name,
        module=module,
        device=device,
        dim=dim,
        tower=tower,
        geometry=_geometry(name, settings, example.shape[-1], patch),
        prepare=prepare,
        settings=settings,
        read=read,
        vocabulary=_vocabulary(tokenizer) + json.dumps(model_cfg, sort_keys=True),
        write=lambda path: _write(path, module, tokenizer, {"model_cfg": model_cfg, "preprocess_cfg": settings}),
        parts={"tower": ("visual.",), "projection": projection},
        why=why,
        last=last,
    )


def library() -> Any:
    """open_clip, which needs a torchvision that fits torch. Raises ModelError with what to do."""
    try:
        import open_clip
    except (ImportError, RuntimeError, OSError) as error:
        raise ModelError(
            f"a model of open_clip needs the library open_clip and a torchvision that fits torch {torch.__version__}, "
            f"but: {str(error).splitlines()[0]}. Run: pip install 'ravl-dashboard[open-clip]'; on a machine without a "
            "GPU also: pip install torchvision --index-url https://download.pytorch.org/whl/cpu."
        ) from error
    return open_clip


# --- what is loaded --------------------------------------------------------------------------------------------------


def _source(open_clip: Any, where: str) -> _Source:
    """Fetch configuration and weights. Raises what the libraries raise."""
    if where.startswith((HF_HUB, LOCAL_DIR)):
        folder = Path(where.removeprefix(LOCAL_DIR)) if where.startswith(LOCAL_DIR) else None
        fetch = open_clip.pretrained.download_pretrained_from_hf
        path = folder / OPEN_CLIP_CONFIG if folder else fetch(where.removeprefix(HF_HUB), filename=OPEN_CLIP_CONFIG)
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        if "model_cfg" not in config:
            raise ValueError(f"{OPEN_CLIP_CONFIG} must hold model_cfg.")
        weights = _weights_in(folder) if folder else fetch(where.removeprefix(HF_HUB))
        return _Source(where, config["model_cfg"], config.get("preprocess_cfg") or {}, weights, folder)
    architecture, _, tag = where.partition("/")
    model, listed = open_clip.get_model_config(architecture), open_clip.get_pretrained_cfg(architecture, tag)
    if model is None or not listed:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        known = f"its tags are {', '.join(tags)}" if model and tags else f"{len(open_clip.list_models())} others are"
        raise ValueError(f"open_clip does not list {where}; {known}.")
    # some lists name the plain architecture for weights that were trained with quick_gelu
    model = {**model, "quick_gelu": bool(listed.get("quick_gelu", model.get("quick_gelu", False)))}
    own = {key: listed[key] for key in ("mean", "std", "interpolation", "resize_mode") if listed.get(key) is not None}
    return _Source(architecture, model, own, open_clip.download_pretrained(listed))


def _weights_in(folder: Path) -> str:
    """The weights of a directory, safetensors first, open_clip's own name before others."""
    found = sorted(
        (path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt", ".pth")),
        key=lambda path: (path.suffix != ".safetensors", not path.name.startswith("open_clip"), path.name),
    )
    if not found:
        raise ValueError(f"{folder} holds no weights.")
    return str(found[0])


def _check_preprocessing(where: str, settings: dict[str, Any]) -> None:
    missing = [key for key in ("mean", "std") if settings.get(key) is None]
    if missing:
        raise ModelError(
            f"a model must come with its own preprocessing, but {where} does not say its {' and '.join(missing)}. "
            f"Add preprocess_cfg to {OPEN_CLIP_CONFIG}, as it was trained; another would silently give wrong results."
        )


def _geometry(name: str, settings: dict[str, Any], side: int, patch: int) -> Geometry:
    size, mode = settings["size"], settings.get("resize_mode") or "shortest"
    height, width = (size, size) if isinstance(size, int) else size
    if height != width or mode == "longest":
        found = f"{width} x {height}, resized by its {mode} side"
        raise ModelError(
            f"the model must see a square that its picture fills, but {name} sees {found}. Choose another model."
        )
    if mode == "squash":
        return Geometry(None, (side, side), None, side, patch)
    return Geometry(side, None, (side, side), side, patch, half_even=True)


def _vocabulary(tokenizer: Any) -> str:
    inner = getattr(tokenizer, "tokenizer", None)
    about = {"kind": type(tokenizer).__name__, "context": tokenizer.context_length}
    if inner is None:
        return json.dumps({**about, "words": len(tokenizer.encoder)})
    return json.dumps({**about, "words": inner.get_vocab()}, sort_keys=True)


def _write(path: Path, module: Any, tokenizer: Any, config: dict[str, Any]) -> None:
    """open_clip's own layout, which `local-dir:` reads: configuration, safetensors, and a tokenizer if it has files."""
    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    (path / OPEN_CLIP_CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({key: value.detach().cpu().clone() for key, value in module.state_dict().items()}, path / WEIGHTS)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(path)
    text: Any = getattr(module, "text", None)
    if hasattr(text, "config") and hasattr(text.config, "save_pretrained"):
        text.config.save_pretrained(path / TEXT_TOWER)


# --- towers taken apart ----------------------------------------------------------------------------------------------


def _tower(visual: Any, forward: Callable[[Tensor], Tensor], example: Tensor) -> tuple[Tower, int, str]:
    """The tower taken apart, if that gives the same answers as the whole; else the whole. Also its patch, and why."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    side, kind = int(example.shape[-1]), type(visual).__name__
    tower: Tower | None = None
    patch, reason = side, f"towers of the type {kind} are not known"
    if isinstance(visual, VisionTransformer):
        tower, patch = _of_open_clip(visual), int(visual.patch_size[0])
    elif isinstance(visual, ModifiedResNet):
        tower, patch = MapTower(visual, example), _STRIDE
    elif kind == "TimmModel":
        tower, reason = _of_timm(visual)
        patch = int(visual.trunk.patch_embed.patch_size[0]) if tower else side
    if tower is not None:
        reason = same(tower, forward, example)
        if not reason:
            own = {
                "tokens": "by their own patches (tokens): the model is a vision transformer",
                "roi": "from the last map (roi): the model is a convolutional network",
            }
            return tower, patch, f"regions are embedded {own[tower.encoder]}"
    return WholeTower(forward, visual, example), side, f"regions are cut out (crop): {reason}"


def _of_open_clip(visual: Any) -> TokenTower:
    blocks, first = visual.transformer.resblocks, visual.transformer.batch_first

    def end(tokens: Tensor) -> Tensor:
        pooled, _ = visual._pool(_step(blocks[-1], first)(tokens))
        return pooled if visual.proj is None else pooled @ visual.proj  # type: ignore[no-any-return]

    width, (rows, columns) = int(visual.conv1.out_channels), visual.grid_size
    mlp = int(blocks[0].mlp.c_fc.out_features)
    steps = [_step(block, first) for block in blocks]
    # one class token; the class knows no others
    alone = visual.attn_pool is not None or visual.pool_type == "tok"
    return TokenTower(visual._embeds, steps, end, 1, rows * columns, width, mlp, alone)


def _step(block: Any, batch_first: bool) -> Callable[[Tensor], Tensor]:
    def run(tokens: Tensor) -> Tensor:
        out: Tensor = block(tokens) if batch_first else block(tokens.transpose(0, 1)).transpose(0, 1)
        return out

    return run


def _of_timm(visual: Any) -> tuple[TokenTower | None, str]:
    """None, and why, for trunks that do more than embed, run blocks one by one and pool."""
    trunk = visual.trunk
    if type(trunk).__name__ != "VisionTransformer" or not hasattr(trunk, "blocks"):
        return None, f"trunks of the type {type(trunk).__name__} are not known"

    def embed(pixels: Tensor) -> Tensor:
        return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(pixels))))  # type: ignore[no-any-return]

    def end(tokens: Tensor) -> Tensor:
        return visual.head(trunk.forward_head(trunk.norm(trunk.blocks[-1](tokens))))  # type: ignore[no-any-return]

    width, n_patches = int(trunk.embed_dim), int(trunk.patch_embed.num_patches)
    mlp = int(trunk.blocks[0].mlp.fc1.out_features)
    prefix, alone = int(trunk.num_prefix_tokens), trunk.global_pool == "token"
    return TokenTower(embed, list(trunk.blocks), end, prefix, n_patches, width, mlp, alone), ""


def _last(visual: Any) -> tuple[list[tuple[Parameter, int]], tuple[str, ...]]:
    """Parameters of a linear last layer with the embedding's axis, and the beginnings of the last layer's names."""
    if hasattr(visual, "attnpool"):
        return _of_linear(visual.attnpool.c_proj), ("visual.attnpool.",)
    if isinstance(getattr(visual, "proj", None), Parameter):
        return [(visual.proj, 1)], ("visual.proj",)
    if (linear := getattr(getattr(visual, "head", None), "proj", None)) is not None:
        return _of_linear(linear), ("visual.head.proj.",)
    trunk: Any = getattr(visual, "trunk", None)
    if isinstance(getattr(trunk, "head", None), nn.Linear):
        return _of_linear(trunk.head), ("visual.trunk.head.",)
    if getattr(trunk, "attn_pool", None) is not None:
        return [], ("visual.trunk.attn_pool.",)
    return [], ("visual.",)


def _of_linear(linear: nn.Linear) -> list[tuple[Parameter, int]]:
    return [(parameter, 0) for parameter in linear.parameters()]
