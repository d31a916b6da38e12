"""Regions that models propose: suppression and limits against an oracle, each family with a tiny random model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ravl
from ravl.config import RegionsConfig
from ravl.discovery.proposals import Proposed, keep, proposed, suppressed
from ravl.discovery.regions import decompose
from ravl.errors import ConfigError, ModelError
from ravl.vlm.proposals import _sampled, load
from tests.models import small_clip
from tests.worlds import COLOURS, colour_folder

VIEW = np.array([0, 0, 40, 30])


def config(**changes: Any) -> RegionsConfig:
    return RegionsConfig("detr", file="/model", **changes)


# --- what is kept ----------------------------------------------------------------------------------------------------


def overlap(one: list[int], other: list[int]) -> float:
    """Intersection over union, pixel by pixel."""
    a, b = ({(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in (one, other))
    return len(a & b) / len(a | b)


_corner = st.integers(0, 12)


@given(
    st.lists(st.tuples(_corner, _corner, st.integers(1, 8), st.integers(1, 8)), max_size=8),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]),
)
def test_suppression_is_greedy(boxes: list[tuple[int, ...]], limit: float) -> None:
    box = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    expected: list[int] = []
    for i, own in enumerate(box):
        if all(overlap(own, box[j]) <= limit for j in expected):
            expected.append(i)
    assert suppressed(np.array(box, np.int64).reshape(-1, 4), limit).tolist() == expected


def kept(boxes: list[list[float]], scores: list[float], **changes: Any) -> list[list[int]]:
    found = Proposed(np.array(boxes, float).reshape(-1, 4), np.array(scores, float))
    return keep(found, VIEW, config(**changes))[1].tolist()


def test_boxes_come_by_falling_score_inside_of_the_view() -> None:
    boxes = [[1.2, 2.7, 10, 10], [-5, 20, 12, 99], [20, 0, 30, 10]]
    assert kept(boxes, [0.2, 0.9, 0.5]) == [[0, 20, 12, 30], [20, 0, 30, 10], [1, 2, 10, 10]]
    assert kept(boxes, [0.2, 0.9, 0.5], most=1) == [[0, 20, 12, 30]]
    assert kept(boxes, [0.2, 0.9, 0.5], min_score=0.6) == [[0, 20, 12, 30]]


def test_areas_have_limits() -> None:
    boxes = [[0, 0, 40, 30], [0, 0, 1, 1], [5, 5, 15, 15]]
    assert kept(boxes, [0.9, 0.8, 0.7]) == [[5, 5, 15, 15]]
    assert kept(boxes, [0.9, 0.8, 0.7], min_area=0, max_area=1, nms=1) == [[0, 0, 40, 30], [0, 0, 1, 1], [5, 5, 15, 15]]


@pytest.mark.parametrize("box", [[np.nan, 0, 5, 5], [0, 0, np.inf, 5], [9, 9, 3, 3], [50, 50, 60, 60], [5, 5, 5, 9]])
def test_boxes_that_are_none_are_dropped(box: list[float]) -> None:
    assert kept([box, [5, 5, 15, 15]], [0.9, 0.5]) == [[5, 5, 15, 15]]
    assert kept([[5, 5, 15, 15]], [np.nan]) == []
    assert kept([], []) == []


class Fixed:
    """Proposes the left half of an image, and of wide ones a mask too."""

    fingerprint = "fixed"

    def propose(self, image: Image.Image) -> Proposed:
        width, height = image.size
        if width == height:
            return Proposed(np.zeros((0, 4)), np.zeros(0))
        mask = np.zeros((-(-height // 3), -(-width // 3)), bool)
        mask[1:3, 1:4] = True
        mask[1, 1] = False
        boxes = np.array([[0, 0, width // 2, height], [3, 3, 12, 9]])
        return Proposed(boxes, np.array([0.6, 0.9]), 3, [None, mask])


def test_regions_with_masks_and_images_without_any() -> None:
    images = [Image.new("RGB", size) for size in ((40, 30), (20, 20), (31, 20))]
    view = np.array([[0, 0, *image.size] for image in images])
    regions = proposed(view, config(), Fixed(), lambda ids: [images[i] for i in ids])
    assert regions.image.tolist() == [0, 0, 2, 2]
    assert np.diff(regions.starts).tolist() == [2, 0, 2]
    assert regions.box.tolist()[:2] == [[3, 3, 12, 9], [0, 0, 20, 30]]
    mask = regions.mask_of(0)
    assert mask is not None
    assert mask.shape == (6, 9)
    assert not mask[:3, :3].any()
    assert mask.sum() == 6 * 9 - 9
    assert regions.mask_of(1) is None
    assert (regions.position == -1).all()


def test_a_proposer_is_needed() -> None:
    with pytest.raises(ValueError, match="proposer must be given"):
        decompose(None, VIEW[None], config(), lambda ids: [])  # type: ignore[arg-type]


# --- the command line's form -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["detr:/m", "owl:/m@nms=0.4", "sam:/m@min_area=0.01,max_area=0.5,most=8", "detr:/a@b/c@min_score=0.2"]
)
def test_limits_are_written_behind_the_folder(text: str) -> None:
    parsed = RegionsConfig.parse(text)
    assert str(parsed) == text
    assert RegionsConfig.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text", ["detr", "detr:", "detr:/m@nms=2", "detr:/m@most=0", "sam:/m@min_area=0.5,max_area=0.1"]
)
def test_forms_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        RegionsConfig.parse(text)


# --- the families ----------------------------------------------------------------------------------------------------


def detr(folder: Path) -> Path:
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    options = {"d_model": 32, "encoder_hidden_dim": 32, "encoder_in_channels": [8, 16, 16], "feat_strides": [8, 16, 32]}
    options |= {"decoder_in_channels": [32, 32, 32], "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 20}
    options |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_layers": 1, "num_denoising": 0}
    module = RTDetrForObjectDetection(RTDetrConfig(backbone_config=backbone, num_labels=3, **options))
    module.save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def owl(folder: Path) -> Path:
    from transformers import Owlv2Config, Owlv2ForObjectDetection
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**vision, "vocab_size": 20, "max_position_embeddings": 8}
    vision |= {"image_size": 64, "patch_size": 16}
    Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(
        folder
    )
    Owlv2ImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def sam(folder: Path) -> Path:
    from transformers import SamConfig, SamModel
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    vision = {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 64,
    }
    vision |= {"patch_size": 16, "mlp_dim": 32, "num_pos_feats": 8, "global_attn_indexes": [0], "window_size": 2}
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    module = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    torch.nn.init.ones_(module.mask_decoder.iou_prediction_head.proj_out.bias)  # else it expects bad masks only
    module.save_pretrained(folder)
    SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


FAMILIES = {"detr": detr, "owl": owl, "sam": sam}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("proposers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {kind: make(root / kind) for kind, make in FAMILIES.items()}


def scene(width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_proposes(kind: str, models: dict[str, Path]) -> None:
    proposer = load(RegionsConfig(kind, file=str(models[kind])), "cpu")
    found = proposer.propose(scene())
    assert len(found.box) == len(found.score) > 0
    assert np.isfinite(found.box).all()
    again = load(RegionsConfig(kind, file=str(models[kind])), "cpu")
    np.testing.assert_array_equal(again.propose(scene()).box, found.box)
    assert proposer.fingerprint == again.fingerprint
    for mask in found.mask:
        assert mask is not None
        assert mask.shape == (40, 60)


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_audit_with_proposals(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    small_clip(tmp_path / "clip", tuple(COLOURS))
    images = colour_folder(tmp_path / "images", 6)
    how = f"{kind}:{models[kind]}@min_area=0.001,max_area=1.0,min_score=0.0,most=5"
    options = {
        "regions": how,
        "clustering": "kmedoids",
        "until": "evidence",
        "device": "cpu",
        "workspace": tmp_path / "w",
    }
    run = ravl.discover(images, tmp_path / "clip", **options)
    regions = run.regions()
    assert 0 < len(regions) <= 5 * 18
    assert (regions.box[:, 2:] <= run.images().size[regions.image]).all()
    assert "proposals" in run.about["fingerprints"]
    assert str(run.config.regions) == how


def test_owl_boxes_are_shares_of_the_padded_square(models: dict[str, Path]) -> None:
    """A wide image is padded below: half of the square's height is twice as far down in the picture."""
    proposer = load(RegionsConfig("owl", file=str(models["owl"])), "cpu")
    box = torch.tensor([[0.5, 0.25, 1.0, 0.5]])
    assert proposer._corners(box, (60, 60)).tolist() == [[0, 0, 60, 30]]


def test_masks_are_sampled_where_the_image_is() -> None:
    mask = np.zeros((16, 16), bool)
    mask[:8, 8:] = True  # the upper right quarter of the square; the image fills its upper half
    out = _sampled(mask, (60, 30), 3, (64, 32), 64)
    assert out.shape == (10, 20)
    assert out[:, 10:].all()
    assert not out[:, :10].any()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_folder_that_holds_no_such_model(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"with config\.json and safetensors"):
        load(RegionsConfig(kind, file=str(tmp_path)), "cpu")
    other = models["sam" if kind == "detr" else "detr"]
    with pytest.raises(ModelError, match="must be followed by the folder of"):
        load(RegionsConfig(kind, file=str(other)), "cpu")
