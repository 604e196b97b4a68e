# SPDX-License-Identifier: Apache-2.0
"""The models of semantic_search.py: text in, unit vectors out. One is fitted here with scikit-learn
and saved; the other is a transformers checkpoint from a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

# Before numpy is loaded, and inherited by every process of either side of the comparison: with one
# BLAS thread each, n workers use n CPUs.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

TERMS_MAX = 100_000
DIMENSIONS = 256


class Model(Protocol):
    def embed(self, texts: list[str]) -> np.ndarray:
        """One row of unit length and type float32 for each text."""
        ...


class LatentSemantics:
    """TF-IDF, then truncated SVD: latent semantic analysis."""

    def __init__(self, steps: object) -> None:
        self.steps = steps

    @classmethod
    def fit(cls, texts: list[str]) -> LatentSemantics:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline

        terms = TfidfVectorizer(
            sublinear_tf=True,
            stop_words="english",
            min_df=2,
            max_features=TERMS_MAX,
            ngram_range=(1, 2),
            token_pattern=r"[A-Za-z][A-Za-z]+",
            dtype=np.float32,
        )
        steps = make_pipeline(terms, TruncatedSVD(DIMENSIONS, n_iter=3, random_state=0))
        steps.fit(texts)
        steps[1].components_ = steps[1].components_.astype(np.float32)
        return cls(steps)

    def save(self, path: Path) -> None:
        import joblib

        partial = path.with_suffix(f".{os.getpid()}")
        joblib.dump(self.steps, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> LatentSemantics:
        import joblib

        return cls(joblib.load(path))

    def embed(self, texts: list[str]) -> np.ndarray:
        return unit_rows(self.steps.transform(texts))


class Checkpoint:
    """The mean of a transformer's last hidden states over the tokens of a text."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def embed(self, texts: list[str]) -> np.ndarray:
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with self.torch.inference_mode():
            hidden = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return unit_rows(mean.numpy())


def unit_rows(rows: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, 1e-12)


def load(path: str) -> Model:
    """A file is a fitted LatentSemantics, a folder a checkpoint."""
    return Checkpoint(Path(path)) if os.path.isdir(path) else LatentSemantics.load(Path(path))
