/* Class map of an image from the low-resolution logits of a segmentation network. C99, no dependencies. */

#ifndef ARGMAX_UPSAMPLE_H
#define ARGMAX_UPSAMPLE_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Resizes logits bilinearly (half-pixel centres, PyTorch's align_corners=False) and takes the class of the largest at
 * every pixel, the lowest of equals.
 *
 * logits: [h, w, classes], row by row, the classes of a position side by side; classes at most 256, no NaN.
 * labels: [height, width], written.
 */
void argmax_upsample(const float *logits, int h, int w, int classes, unsigned char *labels, int height, int width);

#ifdef __cplusplus
}
#endif

#endif
