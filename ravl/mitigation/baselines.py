"""Every method of mitigation as a declaration. What they have in common, the loop, is `ravl.mitigation.training`.

Groups are class x presence of any treated feature, as the audited model's clusters infer it, unless a method says that
it uses the true ones: those are ceilings, since whoever knows them needs no audit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import MitigationConfig
from ravl.tables import Families, ImageSet

if TYPE_CHECKING:
    from ravl.vlm.differentiable import LearningModel

JTT_FACTOR = 20.0
"""How much more often JTT shows an image that the audited model gets wrong (Liu et al. 2021 try 5 to 100)."""


@dataclass(frozen=True)
class Method:
    """What a method does differently from plain contrastive fine-tuning.

    contrastive: whether L_CL is part of the loss. term: the other part, "": none; regions: L_R + L_A; classes: cross-
    entropy over the class prompts; groups: its group DRO. With both, L = lambda L_CL + (1 - lambda) term.
    drawn: which images are drawn more often, "": none; groups: those of small groups, so that all groups come equally
    often; errors: those that the audited model gets wrong.
    exchange: what happens to the pixels, "": nothing; remove: confirmed regions are painted over; both: and pasted.
    region_share: of the images of a batch, those whose regions enter L_R and L_A; the configuration goes before.
    top: of a feature of several clusters only the largest is treated.
    true_groups: groups are class x the set's own group columns. Not for use, for comparison.
    held_out: learns from one half of the audited images, the other half chooses the step.
    learns: which parts learn (`LearningModel.parts`); none: the model is changed in closed form.
    """

    contrastive: bool = True
    term: str = ""
    drawn: str = ""
    exchange: str = ""
    region_share: float = 1.0
    top: bool = False
    true_groups: bool = False
    held_out: bool = False
    learns: tuple[str, ...] = ("tower",)

    @property
    def needs_features(self) -> bool:
        """Whether it is the same as another method, or impossible, without a confirmed feature."""
        inferred = not self.true_groups and "groups" in (self.term, self.drawn)
        return bool(self.term == "regions" or self.exchange or inferred or not self.learns)


METHODS = {
    # ours and its parts
    "ravl": Method(term="regions", exchange="both", region_share=0.25),
    "families": Method(term="regions"),
    "exchange": Method(exchange="both"),
    "erase": Method(exchange="remove"),
    # Varma et al. 2024
    "paper": Method(term="regions", top=True),
    "standard": Method(),
    "upsampled": Method(drawn="groups"),
    "vl-erm": Method(term="classes"),
    "vl-gdro": Method(term="groups", drawn="groups"),
    # Liu et al. 2021, arXiv 2107.09044. Deviation: the audited model stands for the one that was stopped early.
    "jtt": Method(drawn="errors"),
    # Kirichenko et al. 2022, arXiv 2204.02937. Deviation: a logistic head would be no CLIP model, so the last layer is
    # that of the vision tower, and the class prompts stay the classifier. Its features are frozen, as there.
    "dfr": Method(contrastive=False, term="classes", drawn="groups", held_out=True, learns=("projection",)),
    # see `project_out`
    "project": Method(learns=()),
    # ceiling: Sagawa et al. 2020, arXiv 1911.08731
    "gdro-true": Method(term="groups", drawn="groups", true_groups=True),
}
"""By the name in the configuration."""


def top_only(config: MitigationConfig) -> bool:
    """Whether of a feature of several clusters only the largest is treated."""
    return METHODS[config.method].top if config.families == "auto" else config.families == "top"


def region_share(config: MitigationConfig) -> float:
    """The share of the images of a batch whose regions enter the losses."""
    return METHODS[config.method].region_share if config.region_share is None else config.region_share


def treated(families: Families, top: bool) -> NDArray[np.bool_]:
    """(C,) which clusters a training treats: all, or of every feature the one of most regions."""
    if not top:
        return np.ones(len(families.family), bool)
    first = np.unique(families.family, return_index=True)[1]  # cluster ids fall with the number of regions
    return np.isin(np.arange(len(families.family)), first)


def draw_weights(drawn: str, group: NDArray[np.integer[Any]], wrong: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """(I,) probabilities with which images are drawn, summing to 1; None: every image once an epoch.

    group: (I,) ids from 0. wrong: (I,) what the audited model gets wrong.
    """
    if drawn == "groups":
        weight = 1 / np.bincount(group)[group]
    elif drawn == "errors":
        weight = np.where(wrong, JTT_FACTOR, 1.0)
    else:
        return None
    probability: NDArray[np.float64] = weight / weight.sum()
    return probability


def inferred_groups(images: ImageSet, present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(I,) ids of the groups class x presence of any treated feature, from 0, no id without an image."""
    return _numbered(np.stack([images.label, present], 1))


def true_groups(images: ImageSet) -> NDArray[np.int64]:
    """(I,) ids of the groups class x the values of all group columns."""
    columns = [np.unique(values, return_inverse=True)[1] for values in images.groups.values()]
    return _numbered(np.stack([images.label, *columns], 1))


def _numbered(rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = np.unique(rows, axis=0, return_inverse=True)[1].reshape(len(rows))
    return ids


def project_out(vlm: LearningModel, region: NDArray[np.floating[Any]], feature: NDArray[np.integer[Any]]) -> None:
    """Take the directions of features out of the last layer of a model's vision tower, in closed form and in place.

    region: (R, D) unit vectors. feature: (R,) an id, or -1 for the regions of no treated feature. A direction is the
    mean vector of a feature's regions minus the mean of those of none; W becomes (1 - Q Q^T) W, where the columns of Q
    are an orthonormal basis of the directions. So no linear read-out of the embedding sees them any more, which takes
    from the classes whatever lies along them too. Deviation: after Bolukbasi et al. (2016), who do so to words.

    Raises ConfigError for a tower that does not end in a linear layer.
    """
    import torch  # here alone: the screen reads the declarations above, and holds no torch

    last = vlm.last_layer()
    ids = [f for f in np.unique(feature) if f >= 0]
    rest = np.asarray(region[feature < 0], np.float64)
    base = rest.mean(0) if len(rest) else np.zeros(region.shape[1])
    directions = np.array([np.asarray(region[feature == f], np.float64).mean(0) - base for f in ids])
    if not len(directions):
        return
    left, size, _ = np.linalg.svd(directions.T, full_matrices=False)
    basis = torch.from_numpy(left[:, size > 1e-6 * size.max()])
    with torch.no_grad():
        for weight, axis in last:
            exact = weight.double().cpu().movedim(axis, 0)
            weight.copy_((exact - basis @ (basis.T @ exact)).movedim(0, axis))
