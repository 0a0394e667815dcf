"""Input of classification: data sets of labelled images, and the augmentation of one image on the host."""
