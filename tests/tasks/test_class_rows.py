"""The class table of an evaluation: classes without test items are named, and the file is a table that is read back."""

import csv

import numpy as np

from mixtura.cli.spreadsheet import CLASS_HEADER, write_classes
from mixtura.tasks.evaluate import evaluate


def test_every_class_has_a_row_and_absent_ones_have_gaps(cloud, learn, tmp_path):
    features = cloud(n=200, classes=4, separation=1.0)
    model = learn(features, head__family="tied")
    test = features.select_split("test")
    some = test.select(np.array([label != "c3" for label in test.label]))
    found = evaluate(model, some, features.select_split("train"))
    last = found.per_class[3]
    assert (last.name, last.train, last.test, last.recall, last.auc) == ("c3", 40, 0, None, None)
    assert last.specificity is not None
    assert found.metrics["micro_f1"] == found.metrics["top1"]
    recalls = [row.recall for row in found.per_class[:3]]
    assert abs(found.metrics["balanced"] - np.mean(recalls)) < 1e-12
    assert abs(found.metrics["geometric_mean_recall"] - np.prod(recalls) ** (1 / 3)) < 1e-12
    assert 0.5 < found.metrics["macro_auc"] <= 1
    write_classes(found.per_class, tmp_path / "classes.csv")
    with (tmp_path / "classes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == CLASS_HEADER.split(",") and [row["class"] for row in rows] == ["c0", "c1", "c2", "c3"]
    assert float(rows[0]["recall"]) == found.per_class[0].recall and rows[3]["recall"] == ""
