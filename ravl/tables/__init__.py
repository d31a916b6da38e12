"""The records that cross module borders. Columns are numpy arrays, read-only, and checked once on construction.

Undefined numbers are NaN, never 0. Ids (image, region, feature) are positions that never change within a run.
"""

from ravl.tables.evidence import BY_OPERATOR, GRADES, RATES, REASONS, Counterfactuals, Evidence, Significance
from ravl.tables.features import NOISE, Agreement, Clustering, Exemplars, Families, FeatureScores, ZeroShot
from ravl.tables.images import COUNTS_ANYWAY, ImageSet, Regions
from ravl.tables.outcomes import IDENTITIES, Assignment, GroupAccuracy, Report, Step, Verdict, quiet
from ravl.tables.record import columns

__all__ = [
    "BY_OPERATOR",
    "COUNTS_ANYWAY",
    "GRADES",
    "IDENTITIES",
    "NOISE",
    "RATES",
    "REASONS",
    "Agreement",
    "Assignment",
    "Clustering",
    "Counterfactuals",
    "Evidence",
    "Exemplars",
    "Families",
    "FeatureScores",
    "GroupAccuracy",
    "ImageSet",
    "Regions",
    "Report",
    "Significance",
    "Step",
    "Verdict",
    "ZeroShot",
    "columns",
    "quiet",
]
