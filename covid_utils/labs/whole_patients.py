"""From slices to a patient: one prediction for all slices of a person."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from ct_phantom.disease import FINDINGS
from ct_phantom.patients import COVID, draw_stack

from ..core.settings import Settings
from ..data import CTData
from ..io.datasets import DATASETS
from .calibration import operating_point

SENSITIVITY = 0.95  # of the limit, on validation patients


RULES = {
    "mean logit": lambda logits, threshold: float(np.mean(logits)),
    "mean of the highest three": lambda logits, threshold: float(np.mean(np.sort(logits)[-3:])),
    "share above the threshold": lambda logits, threshold: float(np.mean(logits > threshold)),
}


@dataclasses.dataclass(frozen=True)
class PatientRule:
    """How the logits of a patient's slices become one prediction; all of it chosen on validation patients."""

    name: str  # in RULES
    threshold: float  # of a slice, a logit
    limit: float  # a score above it means COVID; 95 % of the validation patients with COVID lie above
    slope: float  # the probability of a score is expit(slope * score + offset) (Platt 1999)
    offset: float

    def scores(self, logits, patients) -> pd.Series:
        """The score of each patient, float, by name, in the order in which they come."""
        logits = pd.Series(np.asarray(logits, float))
        return logits.groupby(np.asarray(patients), sort=False).agg(lambda own: self.score(own.to_numpy()))

    def score(self, logits: np.ndarray) -> float:
        """The score of one patient from the logits of its slices, (n,)."""
        return RULES[self.name](logits, self.threshold)

    def probability(self, score):
        """How likely COVID is, 0 to 1, where as many have it as among the validation patients."""
        return expit(self.slope * score + self.offset)


def choose_rule(logits, labels, patients, threshold: float) -> PatientRule:
    """The rule that tells validation patients apart best: the highest AUC, of equal ones the lowest log loss.

    Args: `logits`, `labels` (0 or 1) and `patients` of validation slices, (N,); `threshold` of a slice, a logit.

    Raises ValueError if all patients have COVID, or none has.
    """
    labels, found = pd.Series(np.asarray(labels, int)), []
    truth = labels.groupby(np.asarray(patients), sort=False).max().to_numpy()  # 1 for a patient with any COVID slice
    if len(set(truth)) < 2:
        raise ValueError("To choose a rule for patients, validation needs some with and some without COVID.")
    for name in RULES:
        rule = PatientRule(name, float(threshold), 0.0, 1.0, 0.0)
        scores = rule.scores(logits, patients).to_numpy()
        wide = scores.std() or 1.0  # shares and logits are of different size, and the regression is held back by it
        fitted = LogisticRegression().fit(scores[:, None] / wide, truth)
        slope, offset = float(fitted.coef_[0, 0] / wide), float(fitted.intercept_[0])
        limit = operating_point(scores, truth, SENSITIVITY)
        rule = dataclasses.replace(rule, limit=limit, slope=slope, offset=offset)
        found.append(((roc_auc_score(truth, scores), -log_loss(truth, rule.probability(scores))), rule))
    return max(found, key=lambda each: each[0])[1]


def whole_lungs(data: CTData, settings: Settings, part: str, n_slices: int = 12) -> CTData:
    """The patients of a split ("train", "val" or "test"), each from the top of the lungs to their base.

    Of phantom patients the stack is drawn, and `shows` says in which slices COVID can be seen; of real ones it is the
    slices that there are, and `shows` is their label. Returns `data` with these slices; `table.label` is the patient's.
    """
    table = data.table[data.table.split == part]
    entry = DATASETS.get(data.name)
    if entry is None or not entry.hospital:
        rows = table.index
        table = table.assign(shows=table.label, label=table.groupby("patient").label.transform("max"))
        masks = {name: None if (mask := getattr(data, name)) is None else mask[rows] for name in ("lesions", "lungs")}
        return dataclasses.replace(data, table=table.reset_index(drop=True), images=data.images[rows], **masks)
    names, size = table.patient.unique(), data.images.shape[-1]
    stacks = [draw_stack(int(name[1:]), settings.seed, entry.hospital, size, n_slices) for name in names]
    findings = np.concatenate([stack.findings for stack in stacks])
    drawn = {
        "path": [f"{data.name}-stack/{name}_s{i:02d}" for name in names for i in range(n_slices)],
        "label": np.repeat([stack.label for stack in stacks], n_slices),
        "patient": np.repeat(names, n_slices),
        "split": part,
        "shows": findings[:, [FINDINGS.index(each) for each in COVID]].any(1).astype(int),
    }
    parts = ("images", "lesions", "lungs")
    tensors = {name: torch.from_numpy(np.concatenate([getattr(stack, name) for stack in stacks])) for name in parts}
    return dataclasses.replace(data, table=pd.DataFrame(drawn), **tensors)
