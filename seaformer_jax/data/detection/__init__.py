"""Object detection: data sets with boxes, their transforms and batches."""
