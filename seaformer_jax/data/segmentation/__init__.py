"""Input of segmentation: data sets of images with masks, their classes, the transforms and validation batches."""
