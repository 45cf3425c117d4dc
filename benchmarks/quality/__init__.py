"""What the quality benchmark of `icons` is made of: features, judge, measures, report."""
