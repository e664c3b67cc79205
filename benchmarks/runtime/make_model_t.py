"""Write model T: a logistic regression with 30 features, always the same. Usage: make_model_t.py FILE."""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

generator = np.random.default_rng(20)
features = generator.standard_normal((1000, 30)).astype(np.float32)
labels = (features @ generator.standard_normal(30) > 0).astype(int)
model = LogisticRegression(max_iter=1000).fit(features, labels)
exported = to_onnx(model, features[:1], options={"zipmap": False})
Path(sys.argv[1]).write_bytes(exported.SerializeToString())
