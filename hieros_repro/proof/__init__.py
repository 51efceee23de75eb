"""What shows that runs are equal, and where they part: claims, comparison, tracing, execution of what there is once more."""
