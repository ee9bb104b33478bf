"""World models against the truth: problems, baselines, scores, reports."""
