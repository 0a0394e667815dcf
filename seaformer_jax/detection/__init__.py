"""The parts of a RetinaNet detector that have no parameters: anchors, targets, losses and the final boxes."""
