"""What a feature is made of, and how two features relate: counts and crops, with the sentences about them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.reading.opened import Audit, Rate
from dashboard.reading.summaries import Crop, Finding, crops, exemplars
from dashboard.words.wording import count, number, rate, title
from ravl.store import AuditRun
from ravl.tables import Families

# --- parts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grouped:
    """Which cluster every region is in, and which feature every cluster belongs to.

    label: (R,) cluster id or -1. strength: (R,) how firmly a region belongs to it. medoid: (C, K) unit vectors.
    """

    label: NDArray[np.int32]
    strength: NDArray[np.float32]
    medoid: NDArray[np.float32]
    families: Families


def grouped(run: AuditRun) -> Grouped:
    """Read it from a run."""
    found = run.clustering()
    return Grouped(found.label, found.strength, found.medoid_vector, run.families())


@dataclass(frozen=True)
class Part:
    """One cluster of a feature. why: how it came to the others, see `Families.reason`. wrong: of its images."""

    cluster: int
    n_regions: int
    wrong: Rate
    why: str
    crops: tuple[Crop, ...]


def parts(audit: Audit, groups: Grouped, feature: int, shown: int) -> tuple[Part, ...]:
    """The clusters of a feature, the largest first, each with at most `shown` crops.

    The exemplars come first, by error contribution, then the regions that belong to the cluster most firmly.
    """
    out = [_part(audit, groups, feature, int(cluster), shown) for cluster in groups.families.clusters_of(feature)]
    return tuple(sorted(out, key=lambda part: (-part.n_regions, part.cluster)))


def _part(audit: Audit, groups: Grouped, feature: int, cluster: int, shown: int) -> Part:
    members = np.flatnonzero(groups.label == cluster)
    images = np.unique(audit.regions.image[members])
    best = [crop for crop in exemplars(audit, feature) if groups.label[crop.region] == cluster][:shown]
    taken = {crop.region for crop in best}
    firm = members[np.argsort(-groups.strength[members], kind="stable")][: 2 * shown]
    rest = [region for region in firm.tolist() if region not in taken][: shown - len(best)]
    wrong = Rate(int(np.count_nonzero(~audit.zero_shot.correct[images])), len(images))
    found = (*best, *crops(audit, np.array(rest, np.int64)))
    return Part(cluster, len(members), wrong, str(groups.families.reason[cluster]), found)


WHY = {
    "near": "it looks like the others to the model",
    "alike": "images that show it err as those of the others do",
    "edited": "a person merged it",
}


def part_heading(part: Part) -> str:
    """One cluster in a line. Plain text."""
    why = f" · here because {WHY[part.why]}" if part.why else ""
    return f"Cluster {part.cluster}: {count(part.n_regions, 'region')}, {rate(part.wrong)} images wrong{why}"


def parts_sentence(found: tuple[Part, ...]) -> str:
    """What a feature is made of. Plain text."""
    if len(found) == 1:
        return "It is one cluster of regions, so it cannot be split. If another feature shows the same, merge the two."
    return (
        f"It is made of {len(found)} clusters of regions. If they do not all show the same, split it; "
        "if another feature shows the same, merge the two."
    )


# --- two features ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """How two features relate. first, second: images that show them; both: those that show both. similarity: highest
    cosine between a cluster of one and a cluster of the other, in [-1, 1]; NaN where one has none.
    """

    first: int
    second: int
    both: int
    similarity: float


def overlap(audit: Audit, groups: Grouped, first: int, second: int) -> Overlap:
    """Where two features stand together, and how alike the model sees them."""
    shows = [audit.shows(feature) for feature in (first, second)]
    vectors = [groups.medoid[groups.families.clusters_of(feature)].astype(np.float64) for feature in (first, second)]
    cosine = np.einsum("ak,bk->ab", *vectors)
    similarity = float(cosine.max()) if cosine.size else float("nan")
    n, m, both = (int(np.count_nonzero(which)) for which in (shows[0], shows[1], shows[0] & shows[1]))
    return Overlap(n, m, both, similarity)


def overlap_sentence(found: Overlap, first: Finding, second: Finding) -> str:
    """The relation of two features in words. Plain text."""
    ones = f"{title(first)} stands in {count(found.first, 'image')}, {title(second)} in {found.second:,}"
    together = f"{count(found.both, 'image')} show both" if found.both else "no image shows both"
    if found.both == 1:
        together = "one image shows both"
    alike = number(found.similarity).replace("-", "−")
    return f"{ones}; {together}. The model sees them as {alike} alike (1 = the same, 0 = nothing in common)."


def same_pull(first: Finding, second: Finding) -> str:
    """Whether errors go to one class. Plain text."""
    if not first.pull or not second.pull:
        return ""
    if first.pull == second.pull:
        return f"Errors of both go to {first.pull}."
    return f"Errors of the first go to {first.pull}, those of the second to {second.pull}: they mislead differently."
